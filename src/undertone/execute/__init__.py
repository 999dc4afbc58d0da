"""Where stages run: in this process or in a pool of processes. What a stage does never depends on it."""

from undertone.execute.run import StageReport, run_stage, write_rows

__all__ = ["StageReport", "run_stage", "write_rows"]
