/* nsrun: the least that a container's start costs the kernel, as a yardstick for start.py.
 *
 * It makes a writable layer, clones a process in new mount, pid, uts, ipc, cgroup (and network, user)
 * namespaces, which mounts the overlay, /proc, /dev, /sys, pivots, and executes the program; it waits, and
 * removes the layer. No parsing, no journal, no devices, no confinement.
 *
 *   nsrun [-n] [-u] [-p] [-r ROUNDS] LOWER SCRATCH PROGRAM [ARGUMENT...]
 *   -n  a network namespace too     -u  a user namespace too, the caller being root inside
 *   -p  no file systems mounted but /proc
 *   -r  so many times, and print the median in milliseconds
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *lower, *scratch, **program;
static int with_user, only_proc, go[2];

static void check(int result, const char *what) {
	if (result < 0) {
		fprintf(stderr, "nsrun: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
}

static void put(const char *path, const char *text) {
	int fd = open(path, O_WRONLY);
	check(fd, path);
	check(write(fd, text, strlen(text)), path);
	close(fd);
}

static void attach(const char *kind, const char *target, unsigned long flags, const char *data) {
	mkdir(target, 0755);
	check(mount(kind, target, kind, flags, data), target);
}

static void furnish(void) {
	attach("tmpfs", "dev", MS_NOSUID | MS_NOEXEC, "mode=755,size=65536k");
	attach("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620");
	attach("tmpfs", "dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k");
	attach("mqueue", "dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
	mkdir("sys", 0755);
	if (mount("sysfs", "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "") < 0)
		check(mount("/sys", "sys", "", MS_BIND | MS_REC, ""), "sys");
}

static int inside(void *unused) {
	char options[3 * 4096], byte;
	(void)unused;
	close(go[1]);
	check(read(go[0], &byte, 1), "read");
	close(go[0]);
	check(mount("", "/", "", MS_REC | MS_PRIVATE, ""), "private");
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/fs,workdir=%s/work%s", lower, scratch, scratch,
		 with_user ? ",userxattr" : "");
	check(chdir(scratch), scratch);
	check(mount("overlay", "root", "overlay", 0, options), "overlay");
	check(chdir("root"), "chdir");
	attach("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
	if (!only_proc)
		furnish();
	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "umount");
	check(chdir("/"), "chdir /");
	execv(program[0], program);
	check(-1, program[0]);
	return 125;
}

static void in_scratch(char *buffer, size_t size, const char *name) {
	snprintf(buffer, size, "%s/%s", scratch, name);
}

static int once(int flags) {
	static const char *names[] = {"fs", "work", "root"};
	static char stack[1 << 16] __attribute__((aligned(16)));
	char path[4200], text[64];
	int status;

	mkdir(scratch, 0755);
	for (int i = 0; i < 3; i++) {
		in_scratch(path, sizeof path, names[i]);
		mkdir(path, 0755);
	}
	check(pipe2(go, O_CLOEXEC), "pipe");
	pid_t pid = clone(inside, stack + sizeof stack, flags | SIGCHLD, NULL);
	check(pid, "clone");
	if (with_user) {
		snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
		put(path, "deny");
		snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
		snprintf(text, sizeof text, "0 %d 1\n", getuid());
		put(path, text);
		snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
		snprintf(text, sizeof text, "0 %d 1\n", getgid());
		put(path, text);
	}
	close(go[0]);
	check(write(go[1], ".", 1), "write");
	close(go[1]);
	check(waitpid(pid, &status, 0), "waitpid");
	/* What the mounts made in the upper directory, and what overlay made in its own. */
	static const char *made[] = {"fs/proc", "fs/dev", "fs/sys", "fs", "work/work", "work", "root"};
	for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
		in_scratch(path, sizeof path, made[i]);
		rmdir(path);
	}
	check(rmdir(scratch), "the program left something");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int ascending(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double now_ms(void) {
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
	int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP, rounds = 0, option;
	while ((option = getopt(argc, argv, "+nupr:")) != -1) {
		if (option == 'n')
			flags |= CLONE_NEWNET;
		else if (option == 'u')
			flags |= CLONE_NEWUSER, with_user = 1;
		else if (option == 'p')
			only_proc = 1;
		else if (option == 'r')
			rounds = atoi(optarg);
		else
			return 125;
	}
	if (argc - optind < 3)
		return 125;
	lower = argv[optind];
	scratch = argv[optind + 1];
	program = argv + optind + 2;
	if (!rounds)
		return once(flags);
	double *times = calloc(rounds, sizeof *times);
	for (int i = 0; i < rounds; i++) {
		double began = now_ms();
		once(flags);
		times[i] = now_ms() - began;
	}
	qsort(times, rounds, sizeof *times, ascending);
	printf("%.3f\n", times[rounds / 2]);
	return 0;
}
