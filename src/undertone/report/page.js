"use strict";
for (const clip of document.querySelectorAll(".clip")) {
  const audio = clip.querySelector("audio");
  if (!audio) continue;
  const head = clip.querySelector(".head");
  const lines = [...clip.querySelectorAll("[data-start]")];
  const seconds = Number(clip.dataset.seconds);
  const show = () => {
    const now = audio.currentTime;
    head.style.left = `${Math.min(100, (100 * now) / seconds)}%`;
    for (const line of lines) line.classList.toggle("now", now > 0 && now >= line.dataset.start && now < line.dataset.end);
  };
  const follow = () => { show(); if (!audio.paused) requestAnimationFrame(follow); };
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    follow();
  });
  for (const event of ["seeked", "pause", "ended"]) audio.addEventListener(event, show);
  for (const track of clip.querySelectorAll(".track")) track.addEventListener("click", (event) => {
    const box = track.getBoundingClientRect();
    audio.currentTime = (seconds * (event.clientX - box.left)) / box.width;
  });
}
addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });
