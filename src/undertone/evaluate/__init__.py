"""Measure whether answers are right: benchmarks, subjects, judges, the reading of answers, metrics and the study table."""
