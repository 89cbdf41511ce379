#!/usr/bin/env bash
# A real Slurm of two nodes on loopback, for tests, on a bare Debian 12 machine, as root:
#   bash tests/slurm.sh up      install (apt-get) if needed, start, wait until the nodes take jobs
#   bash tests/slurm.sh down    cancel all jobs, stop the daemons, remove what `up` wrote
# Both may be repeated; the packages stay. The nodes are this machine twice. Two stand-in GPUs on
# each (/dev/null and /dev/zero) give jobs with --gres=gpu:1 a CUDA_VISIBLE_DEVICES of 0 or 1.
# Memory is counted, but nothing enforces it.
set -euo pipefail

dir=/var/tmp/lthdask-slurm # state, spool, logs, pid files, munge key and socket
etc=/etc/slurm             # where sbatch, squeue and scancel look for slurm.conf
nodes=(n1 n2)
mark="# written by lthdask tests/slurm.sh"

die() {
    tail -n 20 "$dir"/*.log >&2 2>/dev/null || true
    echo "slurm.sh: $*" >&2
    exit 1
}

wait_for() { # wait_for SECONDS COMMAND...: poll until COMMAND succeeds
    local end=$((SECONDS + $1))
    until "${@:2}"; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

ours() { [ "$(head -n 1 "$etc/$1" 2>/dev/null)" = "$mark" ]; }
alive() { grep -qa "${1%-n?}" "/proc/$(cat "$dir/$1.pid")/cmdline"; } 2>/dev/null # not if a zombie
slurm_alive() { alive slurmctld && alive slurmd-n1 && alive slurmd-n2; }
dead() { ! alive "$1"; }
queue_empty() { [ -z "$(timeout 5 squeue -h -o %A 2>/dev/null)" ]; }
nodes_ready() {
    [ "$(timeout 5 sinfo -h -N -o %T 2>/dev/null | grep -cxE 'idle|mixed|allocated|completing')" = 2 ]
}
munge_ready() { munge -n -S "$dir/munge.socket" | unmunge -S "$dir/munge.socket"; } &>/dev/null
start() { "$@" >>"$dir/start.log" 2>&1 </dev/null 9<&- || die "$1 does not start"; }

down() {
    if slurm_alive; then
        timeout 10 squeue -h -o %A | xargs -r timeout 10 scancel || true
        wait_for 60 queue_empty || echo "slurm.sh: some jobs did not end" >&2
    fi
    for daemon in "${nodes[@]/#/slurmd-}" slurmctld munged; do
        alive $daemon || continue
        kill "$(cat "$dir/$daemon.pid")"
        wait_for 20 dead $daemon || die "$daemon does not stop"
    done
    for file in slurm.conf gres.conf; do
        if ours $file; then rm "$etc/$file"; fi
    done
    rm -rf "$dir"
}

up() {
    for file in slurm.conf gres.conf; do
        [ ! -e "$etc/$file" ] || ours $file || die "$etc/$file is not mine: is this part of a cluster?"
    done
    if slurm_alive && munge_ready && nodes_ready; then return; fi
    down
    if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge >/dev/null
    fi

    host=$(hostname -s)
    cpus=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
    memory=$(awk '/^MemAvailable:/ {print int($2 / 2048) - 1024}' /proc/meminfo)
    ((memory > 0)) || die "less than 2 GB of free memory"
    mkdir -p "$dir/state" "$dir/spool" "$etc"
    printf '%s\n' "$mark" "NodeName=n1,n2 Name=gpu File=/dev/null,/dev/zero" >"$etc/gres.conf"
    cat >"$etc/slurm.conf" <<END
$mark
ClusterName=lthdask
SlurmctldHost=$host(127.0.0.1)
AuthInfo=socket=$dir/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
ReturnToService=2
KillWait=15
OverTimeLimit=0
InactiveLimit=0
MinJobAge=30
GresTypes=gpu
NodeName=DEFAULT CPUs=$cpus RealMemory=$memory Gres=gpu:2
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=6821
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=6822
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=INFINITE DefaultTime=INFINITE
END

    (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
    start munged --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
        --seed-file="$dir/munge.seed" --log-file="$dir/munged.log" --pid-file="$dir/munged.pid"
    wait_for 10 munge_ready || die "munge does not answer"
    start slurmctld
    for node in "${nodes[@]}"; do start slurmd -N "$node"; done
    wait_for 60 nodes_ready || die "the nodes are not ready: $(timeout 5 sinfo -h -o '%T %E' 2>&1)"
}

[[ ${1:-} =~ ^(up|down)$ ]] || { echo "usage: bash tests/slurm.sh up|down" >&2; exit 2; }
[ "$(id -u)" = 0 ] || die "must run as root"
exec 9<"$0" && flock 9 # one at a time; `start` keeps the lock out of the daemons
"$1"
[ "$1" = down ] || sinfo -h -N -o "%N is %T: %c CPUs, %m MB, %G"
