/* nsexec: the least that a further program in a container costs, as a yardstick for running.py.
 *
 * It enters all namespaces of a process by its pidfd, goes to its root, forks, executes the program there, and waits.
 * No identity, no powers given up, no filter.
 *
 *   nsexec PID PROGRAM [ARGUMENT...]
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
	int status, pidfd = syscall(SYS_pidfd_open, atoi(words[1]), 0);
	int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;

	if (count < 3 || pidfd < 0 || setns(pidfd, flags) < 0) {
		perror("nsexec");
		return 125;
	}
	pid_t child = fork();
	if (child == 0) {
		execv(words[2], words + 2);
		_exit(127);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
