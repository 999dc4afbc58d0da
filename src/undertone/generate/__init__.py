"""Writing question-answer pairs about clips: evidence, the grammar and LLM generators, and the checks on what they write."""
