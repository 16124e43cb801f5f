"""The calls that a container may make unless it is told otherwise: those that docker allows, by capability.

What is not named fails with EPERM: whatever changes the machine, has had too many holes, or is older than any program
that is still around. One call, clone3, fails with ENOSYS, so that libraries fall back to what they used before.
"""

from __future__ import annotations

from collections.abc import Collection

from nbcontain.oci.seccomp import Argument, Rule, Seccomp

_FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
    fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents
    getdents64 ioctl lchown lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat
    name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64
    statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink
    unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev listmount statmount
"""
_ATTRIBUTES = """
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
    lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
"""
_WAITING = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
    io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect poll ppoll ppoll_time64 pselect6
    pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64
"""
_MEMORY = """
    brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap
    mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease
    remap_file_pages
"""
_NETWORK = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
"""
_BETWEEN_PROCESSES = """
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
    process_vm_readv process_vm_writev ptrace
"""
_PROCESSES = """
    capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv
    futex_wake getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp
    getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage
    getsid get_thread_area gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq
    sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
    setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setrlimit set_robust_list setsid set_thread_area set_tid_address setuid setuid32 tgkill tkill
    ugetrlimit uretprobe vfork wait4 waitid waitpid
"""
_SIGNALS = """
    pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn
"""
_TIME = """
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times
"""
_MACHINE = "getrandom sysinfo uname"
_OF_MACHINES = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls",
}
_WITH_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
        lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
        sethostname setns syslog umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

_FAMILIES = (*range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46))
"""Of sockets (socket(2)), above those that every kernel had: without AF_ALG (38), AF_VSOCK (40), and some that nothing
uses. Named one by one: "above 40" would let in 38 with a bit set that the kernel drops."""
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_NEW_NAMESPACES = 0x7E02_0000
"""CLONE_NEW… of all kinds (clone(2))."""
_ENOSYS = 38


def default(capabilities: Collection[str], machine: str, *, with_32_bit: bool = False) -> Seccomp:
    """The profile for a process with these capabilities on `machine`, uname's word.

    `with_32_bit`: programs of the machine's 32-bit ancestor may run, for images of those.
    """
    always = (
        *(_FILES, _ATTRIBUTES, _WAITING, _MEMORY, _NETWORK, _BETWEEN_PROCESSES, _PROCESSES, _SIGNALS, _TIME, _MACHINE),
        _OF_MACHINES.get(machine, ""),
    )
    with_them = [names for capability, names in _WITH_CAPABILITY.items() if capability in capabilities]
    rules = [Rule(tuple(" ".join((*always, *with_them)).split()), "SCMP_ACT_ALLOW")]
    rules.append(_when("socket", Argument(0, 12, "SCMP_CMP_LT")))
    rules += [_when("socket", Argument(0, each)) for each in _FAMILIES]
    rules += [_when("personality", Argument(0, each)) for each in _PERSONALITIES]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append(_when("clone", Argument(0, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ")))
        # Its flags are in memory, where a filter cannot look; libraries then use clone.
        rules.append(Rule(("clone3",), "SCMP_ACT_ERRNO", _ENOSYS))
    ancestors = {"x86_64": ("SCMP_ARCH_X86",), "aarch64": ("SCMP_ARCH_ARM",)}.get(machine, ())
    return Seccomp("SCMP_ACT_ERRNO", 1, ancestors if with_32_bit else (), (), tuple(rules))


def _when(name: str, condition: Argument) -> Rule:
    return Rule((name,), "SCMP_ACT_ALLOW", arguments=(condition,))
