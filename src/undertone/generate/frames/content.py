"""Wordings of questions about what is said."""

from __future__ import annotations

from undertone.generate.frames.form import Form

_SHORT = ("{Answer}.",)
"""A content answer is the fact and nothing else, so that word overlap with the reference (token F1) counts no framing."""

FORMS = {
    "C.fact": Form(
        train=(
            "Going by what is said, {stem}?",
            "Listen to the words: {stem}?",
            "Please answer from the clip: {stem}?",
            "{Stem}? Answer from what you hear.",
            "According to the speaker, {stem}?",
            "Here is a question about the words: {stem}?",
            "{Stem}? It is said in the clip.",
            "Listen and answer: {stem}?",
            "What do you hear about this: {stem}?",
            "{Stem}, according to the clip?",
            "Tell me what is said: {stem}?",
            "Someone in the clip says it: {stem}?",
            "Listen for this: {stem}?",
        ),
        test=(
            "From what you hear, {stem}?",
            "According to the clip, {stem}?",
            "Answer from the words of the speaker: {stem}?",
            "{Stem}? Listen and tell me.",
            "{Stem}, according to what is said?",
            "Here is a question about the clip: {stem}?",
        ),
        answers=_SHORT,
        rich=(
            "In the recording, {stem}?",
            "{Stem}? Please answer in a few words.",
            "One of the things said answers this: {stem}?",
            "I missed a part of it: {stem}?",
            "Think back to what was said: {stem}?",
            "Someone asks you: {stem}?",
            "{Stem}, as far as you can hear?",
            "Play it again if you need to: {stem}?",
            "Find it in what you hear: {stem}?",
            "The answer is among the words: {stem}?",
            "What do they say about this: {stem}?",
        ),
    ),
    "C.after": Form(
        train=(
            'Which word comes right after "{context}"?',
            'What is the next word after "{context}"?',
            'The speaker says "{context}". Which word comes next?',
            'What does the speaker say right after "{context}"?',
            'Listen for "{context}". What is the next word?',
            'After the words "{context}", which word do you hear?',
            'Tell me the word that comes after "{context}".',
            'You hear "{context}". What is said next?',
        ),
        test=(
            'Which word do you hear right after "{context}"?',
            'What comes next after the words "{context}"?',
            'Tell me the word that the speaker says after "{context}".',
            'Someone says "{context}". What is the next word?',
        ),
        answers=_SHORT,
        rich=(
            'Someone says "{context}", and then which word?',
            'Say the word that continues this: "{context}".',
            '"{context}": what follows right after it?',
            'Which word follows "{context}" in what you hear?',
            'Play the part with "{context}". What is the word that follows?',
        ),
    ),
    "C.before": Form(
        train=(
            'Which word comes right before "{context}"?',
            'What is the last word before "{context}"?',
            'What does the speaker say right before "{context}"?',
            'Listen for "{context}". Which word comes before it?',
            'Before the words "{context}", which word do you hear?',
            'Tell me the word that comes before "{context}".',
        ),
        test=(
            'Which word do you hear right before "{context}"?',
            'What word comes before the words "{context}"?',
            'Tell me the word that the speaker says before "{context}".',
        ),
        answers=_SHORT,
        rich=(
            'Which word leads up to "{context}"?',
            '"{context}": what is said just before it?',
            'Play the part with "{context}". What is the word in front of it?',
            'Which word stands just before "{context}" in what you hear?',
        ),
    ),
    "C.last": Form(
        train=(
            "What is the last word of the clip?",
            "Which word comes last?",
            "Listen to the end. What is the last word?",
            "With which word does the clip end?",
            "Tell me the last word that is said.",
            "What is the very last word that you hear?",
        ),
        test=(
            "Which word is the last one that you hear?",
            "What is the word at the end of the clip?",
            "Tell me which word the speaker says last.",
        ),
        answers=_SHORT,
        rich=(
            "What word closes the clip?",
            "Which is the final word that you hear?",
            "Name the word that the clip ends on.",
        ),
    ),
    "C.between": Form(
        train=(
            'Which word comes between "{before}" and "{after}"?',
            '"{before}", then a word, then "{after}". Which word is it?',
            'What do you hear between "{before}" and "{after}"?',
            'One word is said between "{before}" and "{after}". Which?',
            'Listen for "{before}". What is said after it and before "{after}"?',
            'Tell me the word that stands between "{before}" and "{after}".',
        ),
        test=(
            'What is the word between "{before}" and "{after}"?',
            'Which word do you hear after "{before}" and before "{after}"?',
            'Tell me what is said between "{before}" and "{after}".',
        ),
        answers=_SHORT,
    ),
    "C.first": Form(
        train=(
            "What is the first word of the clip?",
            "Which word comes first?",
            "With which word does the clip begin?",
            "Listen to the beginning. What is the first word?",
            "Tell me the first word that is said.",
            "What is the very first word that you hear?",
        ),
        test=(
            "Which word is the first one that you hear?",
            "What is the word at the beginning of the clip?",
            "Tell me which word the speaker says first.",
        ),
        answers=_SHORT,
    ),
}
