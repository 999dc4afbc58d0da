"use strict";
// A clip's sound stands in the page once; every player of it takes it from there.
for (const player of document.querySelectorAll("audio[data-clip]")) {
  player.src = document.getElementById(`sound-${player.dataset.clip}`).textContent;
  player.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
  });
}
addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });
