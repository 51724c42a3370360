"""Kernel parameters by name: the values behind /proc/sys and ``sysctl`` of an OCI specification.

A parameter is a line of integers or a text. Parts of the kernel that obey one ask
:meth:`Sysctls.integer` when they need it, so a change takes effect at once. Parameters that are
facts of the kernel's state (the host name, counters) are not here but rendered in ``fs/procfs/sys.py``.
See proc_sys(5), tcp(7), ip(7), and Linux's Documentation/admin-guide/sysctl.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from asyncsentry.errnos import EINVAL, ENOENT, EPERM

INT_MAX = (1 << 31) - 1
UINT_MAX = (1 << 32) - 1
LONG_MAX = (1 << 63) - 1
ULONG_MAX = (1 << 64) - 1
TEXT_MAX = 255


class Sysctl(NamedTuple):
    """One parameter: what it starts as and what may be written."""

    default: str
    fields: int
    """How many integers it holds; 0 for text."""
    low: int
    high: int
    mode: int


def _numbers(low: int, high: int, rows: Mapping[str, int | str], mode: int = 0o644) -> dict[str, Sysctl]:
    return {name: Sysctl(str(value), len(str(value).split()), low, high, mode) for name, value in rows.items()}


def _texts(rows: Mapping[str, str], mode: int = 0o644) -> dict[str, Sysctl]:
    return {name: Sysctl(value, 0, 0, 0, mode) for name, value in rows.items()}


_SHM_MAX = ULONG_MAX - (1 << 24)

TABLE: dict[str, Sysctl] = {
    **_numbers(0, 1, {
        "fs.dir-notify-enable": 1, "fs.leases-enable": 1, "fs.protected_hardlinks": 1, "fs.protected_symlinks": 1,
        "kernel.core_uses_pid": 0, "kernel.ctrl-alt-del": 0, "kernel.dmesg_restrict": 0,
        "kernel.sched_autogroup_enabled": 0, "kernel.sched_child_runs_first": 0, "kernel.shm_rmid_forced": 0,
        "net.ipv4.tcp_sack": 1, "net.ipv4.tcp_timestamps": 1, "net.ipv4.tcp_window_scaling": 1,
        "net.ipv4.tcp_abort_on_overflow": 0, "net.ipv4.tcp_dsack": 1, "net.ipv4.tcp_moderate_rcvbuf": 1,
        "net.ipv4.tcp_no_metrics_save": 0, "net.ipv4.tcp_rfc1337": 0, "net.ipv4.tcp_slow_start_after_idle": 1,
        "net.ipv4.ip_forward": 0, "net.ipv4.ip_nonlocal_bind": 0, "net.ipv4.icmp_echo_ignore_all": 0,
        "net.ipv4.icmp_echo_ignore_broadcasts": 1, "net.ipv4.icmp_ignore_bogus_error_responses": 1,
        "net.ipv6.bindv6only": 0, "net.ipv6.ip_nonlocal_bind": 0,
        "vm.oom_dump_tasks": 1, "vm.oom_kill_allocating_task": 0, "vm.legacy_va_layout": 0,
        "vm.compact_unevictable_allowed": 1,
    }),
    **_numbers(0, 2, {
        "fs.protected_fifos": 0, "fs.protected_regular": 0, "fs.suid_dumpable": 0, "kernel.kptr_restrict": 0,
        "kernel.randomize_va_space": 2, "vm.overcommit_memory": 0, "vm.panic_on_oom": 0,
        "net.ipv4.tcp_tw_reuse": 2, "net.ipv4.tcp_recovery": 1, "net.ipv4.tcp_mtu_probing": 0, "net.ipv4.tcp_ecn": 2,
        "net.ipv4.tcp_syncookies": 1, "kernel.unprivileged_bpf_disabled": 2, "kernel.io_uring_disabled": 2,
    }),
    **_numbers(0, 1, {
        "kernel.print-fatal-signals": 0, "kernel.panic_on_warn": 0, "kernel.sysctl_writes_strict": 1,
        "kernel.task_delayacct": 0, "kernel.timer_migration": 1, "kernel.watchdog": 0, "kernel.nmi_watchdog": 0,
        "net.core.bpf_jit_enable": 1, "net.ipv4.ip_early_demux": 1, "net.ipv4.tcp_autocorking": 1,
        "net.ipv4.tcp_early_demux": 1, "net.ipv4.tcp_low_latency": 0, "net.ipv4.udp_early_demux": 1,
        "net.ipv4.tcp_retrans_collapse": 1, "vm.unprivileged_userfaultfd": 0, "vm.laptop_mode": 0,
    }),
    **_numbers(0, INT_MAX, {
        "kernel.hung_task_timeout_secs": 120, "kernel.hung_task_warnings": 10, "kernel.oops_limit": 10000,
        "kernel.perf_cpu_time_max_percent": 25, "kernel.perf_event_mlock_kb": 516, "kernel.watchdog_thresh": 10,
        "net.core.netdev_budget_usecs": 8000, "net.core.bpf_jit_limit": 528482304, "net.ipv4.tcp_app_win": 31,
        "net.ipv4.tcp_challenge_ack_limit": INT_MAX, "net.ipv4.tcp_frto": 2, "net.ipv4.tcp_max_reordering": 300,
        "net.ipv4.tcp_min_rtt_wlen": 300, "net.ipv4.tcp_min_tso_segs": 2, "net.ipv4.tcp_thin_linear_timeouts": 0,
        "net.ipv4.icmp_msgs_burst": 50, "net.ipv4.icmp_msgs_per_sec": 1000, "net.ipv4.igmp_max_msf": 10,
        "net.ipv6.ip6frag_high_thresh": 4194304, "net.ipv6.ip6frag_low_thresh": 3145728, "net.ipv6.ip6frag_time": 60,
        "fs.fanotify.max_queued_events": 16384, "fs.fanotify.max_user_groups": 128, "user.max_cgroup_namespaces": 0,
        "fs.fanotify.max_user_marks": 205039, "user.max_inotify_instances": 128, "user.max_inotify_watches": 192536,
        "user.max_ipc_namespaces": 0, "user.max_mnt_namespaces": 0, "user.max_net_namespaces": 0,
        "user.max_pid_namespaces": 0, "user.max_time_namespaces": 0, "user.max_user_namespaces": 0,
        "user.max_uts_namespaces": 0, "vm.drop_caches": 0, "vm.stat_interval": 1, "vm.memfd_noexec": 0,
        "vm.watermark_boost_factor": 15000, "vm.extfrag_threshold": 500, "vm.compaction_proactiveness": 20,
    }),
    **_numbers(0, UINT_MAX, {"net.ipv4.tcp_notsent_lowat": UINT_MAX}),
    **_numbers(0, 0, {
        "dev.tty.legacy_tiocsti": 0, "dev.tty.ldisc_autoload": 0, "kernel.cad_pid": 1, "kernel.acct": "4 2 30",
        "vm.mmap_rnd_bits": 28, "vm.mmap_rnd_compat_bits": 8,
    }, 0o444),
    **_numbers(0, 3, {"kernel.yama.ptrace_scope": 0}),
    **_numbers(0, 200, {"vm.swappiness": 60}),
    **_numbers(0, 100, {"vm.overcommit_ratio": 50, "vm.dirty_ratio": 20, "vm.dirty_background_ratio": 10}),
    **_numbers(0, INT_MAX, {
        "fs.aio-max-nr": 65536, "fs.epoll.max_user_watches": 5491511, "fs.inotify.max_queued_events": 16384,
        "fs.inotify.max_user_instances": 128, "fs.inotify.max_user_watches": 192536, "fs.lease-break-time": 45,
        "fs.mount-max": 100000, "fs.mqueue.msg_default": 10, "fs.mqueue.msg_max": 10,
        "fs.mqueue.msgsize_default": 8192, "fs.mqueue.msgsize_max": 8192, "fs.mqueue.queues_max": 256,
        "fs.pipe-user-pages-hard": 0, "fs.pipe-user-pages-soft": 16384,
        "kernel.core_pipe_limit": 0, "kernel.keys.maxbytes": 20000, "kernel.keys.maxkeys": 200,
        "kernel.keys.root_maxbytes": 25000000, "kernel.keys.root_maxkeys": 1000000, "kernel.msgmax": 8192,
        "kernel.msgmnb": 16384, "kernel.msgmni": 32000, "kernel.panic": 0, "kernel.panic_on_oops": 0,
        "kernel.perf_event_max_sample_rate": 100000, "kernel.printk": "4 4 1 7", "kernel.printk_delay": 0,
        "kernel.printk_ratelimit": 5, "kernel.printk_ratelimit_burst": 10, "kernel.pty.max": 4096,
        "kernel.pty.reserve": 1024, "kernel.sched_rr_timeslice_ms": 100, "kernel.sched_rt_period_us": 1000000,
        "kernel.sem": "32000 1024000000 500 32000", "kernel.shmmni": 4096, "kernel.sysrq": 16,
        "net.core.netdev_budget": 300, "net.core.netdev_max_backlog": 1000, "net.core.optmem_max": 131072,
        "net.core.dev_weight": 64, "net.core.message_burst": 10, "net.core.message_cost": 5,
        "net.core.busy_poll": 0, "net.core.busy_read": 0, "net.core.rps_sock_flow_entries": 0,
        "net.core.somaxconn": 4096, "net.ipv4.tcp_fin_timeout": 60, "net.ipv4.tcp_keepalive_time": 7200,
        "net.ipv4.tcp_keepalive_intvl": 75, "net.ipv4.tcp_keepalive_probes": 9, "net.ipv4.tcp_max_orphans": 131072,
        "net.ipv4.tcp_max_syn_backlog": 2048, "net.ipv4.tcp_max_tw_buckets": 131072, "net.ipv4.tcp_fastopen": 1,
        "net.ipv4.tcp_retries1": 3, "net.ipv4.tcp_retries2": 15, "net.ipv4.tcp_syn_retries": 6,
        "net.ipv4.tcp_synack_retries": 5, "net.ipv4.tcp_orphan_retries": 0, "net.ipv4.tcp_reordering": 3,
        "net.ipv4.tcp_base_mss": 1024, "net.ipv4.tcp_limit_output_bytes": 4194304, "net.ipv4.tcp_early_retrans": 3,
        "net.ipv4.udp_rmem_min": 4096, "net.ipv4.udp_wmem_min": 4096, "net.ipv4.ip_no_pmtu_disc": 0,
        "net.ipv4.ipfrag_high_thresh": 4194304, "net.ipv4.ipfrag_low_thresh": 3145728, "net.ipv4.ipfrag_time": 30,
        "net.ipv4.icmp_ratelimit": 1000, "net.ipv4.icmp_ratemask": 6168, "net.ipv4.igmp_max_memberships": 20,
        "net.unix.max_dgram_qlen": 512, "vm.max_map_count": 65530, "vm.dirty_expire_centisecs": 3000,
        "vm.dirty_writeback_centisecs": 500, "vm.dirty_bytes": 0, "vm.dirty_background_bytes": 0,
        "vm.min_free_kbytes": 67584, "vm.vfs_cache_pressure": 100, "vm.page-cluster": 3, "vm.nr_hugepages": 0,
        "vm.nr_overcommit_hugepages": 0, "vm.overcommit_kbytes": 0, "vm.admin_reserve_kbytes": 8192,
        "vm.user_reserve_kbytes": 131072, "vm.zone_reclaim_mode": 0, "vm.watermark_scale_factor": 10,
    }),
    **_numbers(-1, INT_MAX, {
        "kernel.msg_next_id": -1, "kernel.perf_event_paranoid": 2, "kernel.sched_rt_runtime_us": 950000,
        "kernel.sem_next_id": -1, "kernel.shm_next_id": -1,
    }),
    **_numbers(-INT_MAX, INT_MAX, {"net.ipv4.tcp_adv_win_scale": 1}),
    **_numbers(0, 255, {"net.ipv4.ip_default_ttl": 64}),
    **_numbers(0, 65535, {
        "fs.overflowgid": 65534, "fs.overflowuid": 65534, "kernel.overflowgid": 65534, "kernel.overflowuid": 65534,
        "net.ipv4.ip_unprivileged_port_start": 1024,
    }),
    **_numbers(1, 65535, {"net.ipv4.ip_local_port_range": "32768 60999"}),
    **_numbers(0, INT_MAX, {"net.ipv4.ping_group_range": "1 0"}),
    **_numbers(1, INT_MAX, {
        "net.ipv4.tcp_rmem": "4096 131072 6291456", "net.ipv4.tcp_wmem": "4096 16384 4194304",
        "net.ipv4.tcp_mem": "287898 383867 575796", "net.ipv4.udp_mem": "575799 767734 1151598",
        "net.core.rmem_default": 212992, "net.core.rmem_max": 212992, "net.core.wmem_default": 212992,
        "net.core.wmem_max": 212992,
    }),
    **_numbers(8, INT_MAX, {"fs.nr_open": 1048576}),
    **_numbers(0, LONG_MAX, {"fs.file-max": LONG_MAX, "vm.mmap_min_addr": 65536}),
    **_numbers(4096, INT_MAX, {"fs.pipe-max-size": 1048576}),
    **_numbers(301, 4194304, {"kernel.pid_max": 4194304}),
    **_numbers(20, 1 << 30, {"kernel.threads-max": 32768}),
    **_numbers(0, ULONG_MAX, {"kernel.shmall": _SHM_MAX, "kernel.shmmax": _SHM_MAX, "vm.nr_pdflush_threads": 0}),
    **_numbers(0, 0, {
        "kernel.cap_last_cap": 40, "kernel.ngroups_max": 65536, "kernel.auto_msgmni": 0, "kernel.tainted": 0,
        "kernel.random.entropy_avail": 256, "kernel.random.poolsize": 256, "kernel.acpi_video_flags": 0,
        "kernel.bootloader_type": 0, "kernel.bootloader_version": 0, "kernel.real-root-dev": 0,
        "kernel.numa_balancing": 0, "fs.aio-nr": 0, "fs.inode-state": "0 0 0 0 0 0 0",
        "net.ipv4.tcp_ehash_entries": 262144,
    }, 0o444),
    **_numbers(0, INT_MAX, {"kernel.random.urandom_min_reseed_secs": 60, "kernel.random.write_wakeup_threshold": 256}),
    **_texts({
        "kernel.core_pattern": "core", "net.core.default_qdisc": "pfifo_fast", "net.ipv4.ip_local_reserved_ports": "",
        "kernel.poweroff_cmd": "/sbin/poweroff", "kernel.modprobe": "/sbin/modprobe", "kernel.hotplug": "",
        "kernel.printk_devkmsg": "ratelimit", "net.ipv4.tcp_congestion_control": "reno",
        "net.ipv4.tcp_allowed_congestion_control": "reno",
    }),
    **_texts({
        "kernel.seccomp.actions_avail": "kill_process kill_thread trap errno user_notif trace log allow",
        "kernel.seccomp.actions_logged": "kill_process kill_thread trap errno user_notif trace log",
        "net.ipv4.tcp_available_congestion_control": "reno cubic", "kernel.arch": "x86_64",
    }, 0o444),
}  # fmt: skip
"""Every stored parameter by its dotted name."""

_DEVICES = ("all", "default", "lo")
_CONF: dict[str, tuple[int, int, int]] = {
    "net.ipv4.conf.{}.accept_redirects": (1, 0, 1), "net.ipv4.conf.{}.accept_source_route": (0, 0, 1),
    "net.ipv4.conf.{}.arp_announce": (0, 0, 2), "net.ipv4.conf.{}.arp_filter": (0, 0, 1),
    "net.ipv4.conf.{}.arp_ignore": (0, 0, 8), "net.ipv4.conf.{}.forwarding": (0, 0, 1),
    "net.ipv4.conf.{}.log_martians": (0, 0, 1), "net.ipv4.conf.{}.rp_filter": (0, 0, 2),
    "net.ipv4.conf.{}.route_localnet": (0, 0, 1), "net.ipv4.conf.{}.send_redirects": (1, 0, 1),
    "net.ipv6.conf.{}.accept_ra": (1, 0, 2), "net.ipv6.conf.{}.autoconf": (1, 0, 1),
    "net.ipv6.conf.{}.disable_ipv6": (0, 0, 1), "net.ipv6.conf.{}.forwarding": (0, 0, 1),
    "net.ipv6.conf.{}.hop_limit": (64, 1, 255), "net.ipv6.conf.{}.use_tempaddr": (0, -1, 2),
}  # fmt: skip
for _pattern, (_value, _low, _high) in _CONF.items():
    for _device in _DEVICES:
        TABLE.update(_numbers(_low, _high, {_pattern.format(_device): _value}))


class Sysctls:
    """The present values of one kernel."""

    def __init__(self) -> None:
        self._changed: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def get(self, name: str) -> str:
        """Gives a value as text, fields separated by tabs; ENOENT for an unknown name."""
        entry = TABLE.get(name)
        if entry is None:
            raise ENOENT(f"no parameter {name}")
        value = self._changed.get(name, entry.default)
        return "\t".join(value.split()) if entry.fields > 1 else value

    def integer(self, name: str, field: int = 0) -> int:
        """Gives one integer of a value."""
        return int(self._changed.get(name, TABLE[name].default).split()[field])

    def set(self, name: str, text: str) -> None:
        """Changes a value; EINVAL if it does not parse or is out of range, EPERM if it is fixed.

        Of several integers a shorter line changes the first ones only, as in Linux.
        """
        entry = TABLE.get(name)
        if entry is None:
            raise ENOENT(f"no parameter {name}")
        if not entry.mode & 0o200:
            raise EPERM(f"{name} cannot be changed")
        if entry.fields == 0:
            self._changed[name] = text.strip("\n\0")[:TEXT_MAX]
            return
        values = [_parse(name, word, entry) for word in text.strip("\0 \t\n").split()]
        if not values or len(values) > entry.fields:
            raise EINVAL(f"{name} takes {entry.fields} integers")
        kept = self._changed.get(name, entry.default).split()[len(values) :]
        self._changed[name] = " ".join([*map(str, values), *kept])


def _parse(name: str, word: str, entry: Sysctl) -> int:
    try:
        value = int(word, 0)
    except ValueError:
        raise EINVAL(f"{name}: {word!r} is no integer") from None
    if not entry.low <= value <= entry.high:
        raise EINVAL(f"{name}: {value} is not in {entry.low}..{entry.high}")
    return value
