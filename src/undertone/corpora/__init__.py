"""Recordings in: folders of audio with or without a manifest, assembled recordings, the demonstration corpus."""
