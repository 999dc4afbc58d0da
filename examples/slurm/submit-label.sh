#!/bin/bash
# Label speech with a job array:  examples/slurm/submit-label.sh 16 speech --out runs/mine
# First the list of recordings in one job, then the labellers in as many as the first argument says, then one that gathers and decides.
set -euo pipefail

here=$(dirname "$0")
shares=$1
shift
corpus=$(sbatch --parsable "$here/one.sbatch" label "$@" --until corpus)
labels=$(sbatch --parsable --dependency="afterok:$corpus" --array="1-$shares" "$here/shard.sbatch" "$shares" label "$@")
# afterany: the last job also does what a lost one has left.
sbatch --dependency="afterany:$labels" "$here/one.sbatch" label "$@"
