"""Labels from speech: voice activity, affect, gender, prosody, and the stage that runs labellers over recordings."""
