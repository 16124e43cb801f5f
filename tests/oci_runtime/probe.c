/* Makes each call that it is told, in a child, and says how that ended: an errno, 0, or minus the signal.
   Words: NUMBER[,ARGUMENT…]. For tests of filters; static, so that it needs nothing of the root it is run in. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
    char line[32];
    for (int each = 1; each < count; each++) {
        unsigned long values[7] = {0};
        char *word = words[each];
        for (int index = 0; index < 7 && *word; index++) {
            values[index] = strtoul(word, &word, 0);
            if (*word == ',') word++;
        }
        int status, child = fork();
        if (child == 0) {
            errno = 0;
            long result = syscall(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
            _exit(result < 0 ? errno : 0);
        }
        waitpid(child, &status, 0);
        int length = snprintf(line, sizeof line, "%d\n", WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
        if (write(1, line, length) < 0) return 1;
    }
    return 0;
}
