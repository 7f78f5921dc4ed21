#!/bin/bash
# Two nodes of eight GPUs: sbatch docs/launch/slurm.sh
# A process for each GPU; JAX learns from SLURM which it is. The folder of the run and its data must
# be the same on all nodes. With --requeue a job that is taken away goes on where it was saved: SLURM
# sends SIGTERM, the run saves, and the same command resumes.
#SBATCH --job-name=gpt2_124m
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --requeue
#SBATCH --signal=TERM@120

srun --kill-on-bad-exit=1 python train.py --config gpt2_124m.yaml \
    --data.tokenizer path/to/gpt2 --run.dir runs/gpt2_124m
