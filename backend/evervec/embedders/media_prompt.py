"""The prompt for the description of a picture or a sound, the same for all providers."""

from typing import Final

PROMPT: Final = (
    "Describe what this file shows or lets hear, so that it can be found by searching for words. Name the people, "
    "things, places, actions, sounds and colours that matter, first of all what it is about. Repeat word for word any "
    "text that can be read or heard in it. Answer in the language of that text, or in English where there is none, "
    "in plain sentences, without any introduction and without saying that you are describing a file."
)
"""The answer is embedded as the text of the file, so it must hold nothing else."""
