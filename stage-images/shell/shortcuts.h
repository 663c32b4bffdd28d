/* See shortcuts.c. */
#define NO_SHORTCUT (-1)

/* Do what the program at `path` would do with `argv`; its exit status, or NO_SHORTCUT if it is to be run. */
int shortcut(const char *path, char **argv);
