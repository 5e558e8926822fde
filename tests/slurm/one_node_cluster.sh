#!/usr/bin/env bash
# Makes a SLURM cluster of this one machine, runs a command on it, and takes it down again:
#
#     apt-get install --no-install-recommends slurm-wlm munge
#     tests/slurm/one_node_cluster.sh python tests/slurm/check_resume.py
#
# As root, in a container too (no systemd, no cgroups, no accounting).  Everything it writes lies in one temporary
# folder, munge's key and socket included; a SLURM or munge that runs on this machine already is left alone.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARGUMENT ...]" >&2; exit 2; }
for program in munged slurmctld slurmd sbatch srun scontrol; do
    command -v "$program" > /dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "slurmd wants root" >&2; exit 2; }

FOLDER=$(mktemp -d)
export SLURM_CONF=$FOLDER/slurm.conf
HOST=$(hostname -s)
CORES=$(nproc)
MEMORY=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
mkdir -p "$FOLDER/state" "$FOLDER/spool"
chmod 755 "$FOLDER"
PROCESSES=()

finish() {
    for ((i = ${#PROCESSES[@]} - 1; i >= 0; i--)); do kill "${PROCESSES[i]}" 2> /dev/null || true; done
    wait 2> /dev/null || true
    if [ "${KEEP_CLUSTER_LOGS:-}" ]; then echo "logs of the cluster: $FOLDER"; else rm -rf "$FOLDER"; fi
}
trap finish EXIT

head -c 1024 /dev/urandom > "$FOLDER/munge.key"
chmod 400 "$FOLDER/munge.key"
# "force": the owner of /tmp, which is not root in every container, is no concern of a throw-away cluster
munged --foreground --force --key-file="$FOLDER/munge.key" --socket="$FOLDER/munge.socket" \
    --pid-file="$FOLDER/munged.pid" --log-file="$FOLDER/munged.log" --seed-file="$FOLDER/munge.seed" > /dev/null 2>&1 &
PROCESSES+=($!)

cat > "$SLURM_CONF" << CONF
ClusterName=one
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munge.socket
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd.log
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=10
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$CORES RealMemory=$MEMORY State=UNKNOWN
PartitionName=main Nodes=$HOST Default=YES MaxTime=INFINITE State=UP
CONF

slurmctld -D > /dev/null 2>&1 &
PROCESSES+=($!)
slurmd -D > /dev/null 2>&1 &
PROCESSES+=($!)

for _ in $(seq 60); do
    if sinfo --noheader --format %t 2> /dev/null | grep -q idle; then ready=1; break; fi
    sleep 0.5
done
if [ -z "${ready:-}" ]; then
    echo "the cluster did not come up" >&2
    tail -n 20 "$FOLDER"/*.log >&2
    exit 1
fi
"$@"
