#!/usr/bin/env bash
# Stage 2 on two nodes of eight GPUs. sbatch examples/slurm.sh
#SBATCH --job-name=codebrain-stage2
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120

set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export first

# Two minutes before the limit SLURM sends SIGTERM to the processes, which save and exit; submit the same script again to go
# on. srun no longer hands --cpus-per-task on by itself; a node that fails ends the others.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 bash -c 'accelerate launch --multi_gpu \
    --num_processes $((8 * SLURM_NNODES)) --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --main_process_ip "$first" --main_process_port 29500 --mixed_precision bf16 --dynamo_backend no \
    pretrain/stage2.py --config pretrain/configs/stage2/base.yaml --loop.mixed_precision bf16 --loop.batch_size 16 \
    --data STORE --tokenizer RUN1 --run_dir RUN2'
