/*
 * What the shell does itself instead of starting a program: the plain cases of rm, cat, mv and mkdir,
 * and three exact calls of sed and grep with which configure scripts write what failed to their log.
 *
 * A configure script starts hundreds of them, and in an emulated node a start costs 3.5 ms. The shell
 * has looked the name up in PATH, expanded the words and redirected the descriptors; only then, and
 * only if it found the program at its usual place, is it asked for here. Whatever is not plain (an
 * option not known here, an operand that needs a message or a question) is left to the program, and
 * so is everything that fails before a byte is written: messages and statuses are the program's own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shortcuts.h"

#define BLOCK 65536
#define CUT "... rest of stderr output deleted ..."
#define DESCRIPTORS 8 /* that a walk down a tree may keep open */

/* The letters of all options up to the operands, all of them in `known`; -1 if one is not. */
static int options(char **argv, const char *known, int *operands)
{
	int letters = 0, i = 1;
	for (; argv[i] && argv[i][0] == '-' && argv[i][1]; i++) {
		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		for (const char *letter = argv[i] + 1; *letter; letter++) {
			const char *found = strchr(known, *letter);
			if (!found)
				return -1;
			letters |= 1 << (found - known);
		}
	}
	*operands = i;
	/* GNU's programs take options after operands too. */
	for (; argv[i]; i++)
		if (argv[i][0] == '-')
			return -1;
	return letters;
}

/* The last component of a path is "." or "..", or there is none: rm refuses these. */
static int is_dot(const char *path)
{
	const char *last = strrchr(path, '/');
	last = last ? last + 1 : path;
	return !*last || !strcmp(last, ".") || !strcmp(last, "..");
}

static int delete(const char *path, const struct stat *status, int type, struct FTW *place)
{
	(void)status;
	(void)place;
	return type == FTW_DP ? rmdir(path) : unlink(path);
}

/* rm -f and rm -rf, which never ask. Again is harmless: what fails is left to the program. */
static int rm(char **argv)
{
	int first, letters = options(argv, "frR", &first);
	if (letters < 0 || !(letters & 1))
		return NO_SHORTCUT;
	for (int i = first; argv[i]; i++)
		if (is_dot(argv[i]))
			return NO_SHORTCUT;
	for (int i = first; argv[i]; i++) {
		struct stat status;
		if (lstat(argv[i], &status)) {
			if (errno != ENOENT && errno != ENOTDIR)
				return NO_SHORTCUT;
		} else if (S_ISDIR(status.st_mode)) {
			if (!(letters & 6) || nftw(argv[i], delete, DESCRIPTORS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT))
				return NO_SHORTCUT;
		} else if (unlink(argv[i])) {
			return NO_SHORTCUT;
		}
	}
	return 0;
}

/* Write all, for a program that has a status of its own for what goes wrong. */
static int put(const char *data, ssize_t size, const char *program, int failure)
{
	while (size > 0) {
		ssize_t n = write(1, data, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno == EPIPE)
				return 128 + SIGPIPE;
			dprintf(2, "%s: write error: %s\n", program, strerror(errno));
			return failure;
		}
		data += n;
		size -= n;
	}
	return 0;
}

static int copy(int from, const char *name)
{
	static char block[BLOCK];
	for (;;) {
		ssize_t n = read(from, block, sizeof block);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			dprintf(2, "cat: %s: %s\n", name, strerror(errno));
			return 1;
		}
		int failed = n ? put(block, n, "cat", 1) : 0;
		if (!n || failed)
			return failed;
	}
}

/* Whether cat may read it: a file or a pipe, and not what it writes to. */
static int readable(const char *path)
{
	struct stat from, to;
	int is_input = !strcmp(path, "-");
	if (is_input ? fstat(0, &from) : stat(path, &from) || access(path, R_OK))
		return 0;
	if (!S_ISREG(from.st_mode) && !(is_input && S_ISFIFO(from.st_mode)))
		return 0;
	return !fstat(1, &to) && !(from.st_dev == to.st_dev && from.st_ino == to.st_ino);
}

static int copy_named(const char *path)
{
	if (!strcmp(path, "-"))
		return copy(0, path);
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0) {
		dprintf(2, "cat: %s: %s\n", path, strerror(errno));
		return 1;
	}
	int failed = copy(file, path);
	close(file);
	return failed;
}

/* cat without options, of files and of its input (a here-document). */
static int cat(char **argv)
{
	static char *input[] = {"-", NULL};
	char **paths = argv[1] ? argv + 1 : input;
	for (int i = 0; paths[i]; i++)
		if ((paths[i][0] == '-' && paths[i][1]) || !readable(paths[i]))
			return NO_SHORTCUT;
	int status = 0;
	for (int i = 0; paths[i] && status < 128; i++) {
		int failed = copy_named(paths[i]);
		status = failed ? failed : status;
	}
	return status;
}

/* mv of one file to a name that is no directory, where nobody is to be asked. */
static int mv(char **argv)
{
	int first, letters = options(argv, "f", &first);
	struct stat from, to;
	if (letters < 0 || !argv[first] || !argv[first + 1] || argv[first + 2])
		return NO_SHORTCUT;
	const char *source = argv[first], *target = argv[first + 1];
	if (lstat(source, &from) || !S_ISREG(from.st_mode) || target[strlen(target) - 1] == '/')
		return NO_SHORTCUT;
	if (!stat(target, &to)) {
		int same = from.st_dev == to.st_dev && from.st_ino == to.st_ino;
		if (S_ISDIR(to.st_mode) || same || (!letters && access(target, W_OK)))
			return NO_SHORTCUT;
	} else if (errno != ENOENT || !lstat(target, &to)) {
		return NO_SHORTCUT;
	}
	return rename(source, target) ? NO_SHORTCUT : 0;
}

/* mkdir and mkdir -p of one directory whose parent is there. */
static int make_directory(char **argv)
{
	int first, letters = options(argv, "p", &first);
	struct stat status;
	if (letters < 0 || !argv[first] || argv[first + 1])
		return NO_SHORTCUT;
	if (!mkdir(argv[first], 0777))
		return 0;
	return letters && errno == EEXIST && !stat(argv[first], &status) && S_ISDIR(status.st_mode) ? 0 : NO_SHORTCUT;
}

/* What a filter reads, with room for a NUL, and what it makes of it: an empty line becomes three bytes. */
static char text[BLOCK + 1], made[3 * BLOCK];

/* Read all of a short file without bytes that depend on the locale; -1 if it is another. */
static ssize_t read_text(const char *path)
{
	if (path[0] == '-' || !readable(path))
		return -1;
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return -1;
	ssize_t size = 0, n;
	while ((n = read(file, text + size, BLOCK - size)) > 0)
		size += n;
	close(file);
	text[size] = 0;
	int plain = !n && size < BLOCK;
	for (ssize_t i = 0; i < size; i++)
		plain = plain && text[i] && (unsigned char)text[i] < 0x80;
	return plain ? size : -1;
}

static const char *line_end(const char *line, const char *end)
{
	const char *newline = memchr(line, '\n', end - line);
	return newline ? newline + 1 : end;
}

/* sed 's/^/| /' FILE: a program that did not compile, for config.log. */
static int put_quoted(const char *end)
{
	char *to = made;
	for (const char *line = text, *next; line < end; line = next) {
		next = line_end(line, end);
		to = mempcpy(mempcpy(to, "| ", 2), line, next - line);
	}
	return put(made, to - made, "sed", 4);
}

/* sed '10a\TEXT;10q' FILE: the beginning of a long message. */
static int put_beginning(const char *end)
{
	const char *next = text;
	int lines = 0;
	while (next < end && lines < 10) {
		next = line_end(next, end);
		lines++;
	}
	if (lines == 10 && next[-1] != '\n')
		return NO_SHORTCUT;
	int failed = put(text, next - text, "sed", 4);
	return failed || lines < 10 ? failed : put(CUT "\n", strlen(CUT "\n"), "sed", 4);
}

static int sed(char **argv)
{
	if (!argv[1] || !argv[2] || argv[3])
		return NO_SHORTCUT;
	int quotes = !strcmp(argv[1], "s/^/| /");
	if (!quotes && strcmp(argv[1], "10a\\\n" CUT "\n         10q"))
		return NO_SHORTCUT;
	ssize_t size = read_text(argv[2]);
	if (size < 0)
		return NO_SHORTCUT;
	return quotes ? put_quoted(text + size) : put_beginning(text + size);
}

/* grep -v '^ *+' FILE: what a compiler said, without what a shell that traces said. */
static int grep(char **argv)
{
	if (!argv[1] || strcmp(argv[1], "-v") || !argv[2] || strcmp(argv[2], "^ *+") || !argv[3] || argv[4])
		return NO_SHORTCUT;
	ssize_t size = read_text(argv[3]);
	if (size < 0)
		return NO_SHORTCUT;
	char *to = made;
	const char *end = text + size;
	for (const char *line = text, *next; line < end; line = next) {
		next = line_end(line, end);
		if (line[strspn(line, " ")] != '+')
			to = mempcpy(to, line, next - line);
	}
	if (to == made)
		return 1;
	if (to[-1] != '\n')
		*to++ = '\n';
	return put(made, to - made, "grep", 2);
}

static const struct {
	const char *name;
	int (*act)(char **argv);
	int pipes; /* whether it may write to a pipe that nobody reads */
} shortcuts[] = {
	{"rm", rm, 0}, {"cat", cat, 1}, {"mv", mv, 0}, {"mkdir", make_directory, 0}, {"sed", sed, 1}, {"grep", grep, 1},
};

static int (*named(const char *path, int *pipes))(char **)
{
	const char *name = !strncmp(path, "/usr", 4) ? path + 4 : path;
	if (strncmp(name, "/bin/", 5))
		return NULL;
	for (size_t i = 0; i < sizeof shortcuts / sizeof *shortcuts; i++)
		if (!strcmp(name + 5, shortcuts[i].name)) {
			*pipes = shortcuts[i].pipes;
			return shortcuts[i].act;
		}
	return NULL;
}

int shortcut(const char *path, char **argv)
{
	int pipes;
	int (*act)(char **) = named(path, &pipes);
	if (!act || !argv[0])
		return NO_SHORTCUT;
	if (!pipes)
		return act(argv);
	/* A program would die of this signal, and the shell that started it would not. */
	struct sigaction ignored = {.sa_handler = SIG_IGN}, before;
	sigaction(SIGPIPE, &ignored, &before);
	int status = act(argv);
	sigaction(SIGPIPE, &before, NULL);
	return status;
}
