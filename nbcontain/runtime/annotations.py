"""What our specs say besides the runtime specification, and what a program gets that nobody said anything of."""

USER = "org.nbcontain.user"
"""USER's words, resolved inside the image."""
GROUPS = "org.nbcontain.groups"
"""Further groups, resolved inside the image."""
REAPER = "org.nbcontain.init"
"""\"true\" where a small first process of ours reaps and forwards signals (`--init`)."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
