/*
 * The compiler's stand-in in a node. Called as gcc, cc, g++, CHOST-gcc..., it sends its command line
 * to the compile server on the host, answers the server's questions about files of the build tree,
 * writes what the server compiled, and exits as the compiler would have. Whatever the server
 * refuses, and whatever goes wrong, is left to the next compiler of that name in PATH (distcc, or
 * the node's own).
 *
 * The protocol is described in cluster/node/wire.py. All integers are big-endian.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VERSION "portage-cluster compile 1"
#define MAX_FRAME (256u << 20) /* of the server's; more is a broken connection */
#define MAX_FILE (64u << 20)
#define MAX_EAGER (1u << 20) /* a source that is sent without having been asked for */
#define MAX_LISTING 16384    /* bytes of the working directory's names, likewise */
#define TIMEOUT_S 300        /* the server's own deadline for a compile is shorter */

/* Variables that change what a compiler does or says; cluster/node/commandline.py judges them. */
static const char *const variables[] = {
	"CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH",
	"GCC_EXEC_PREFIX", "GCC_ROOT", "GCC_COMPARE_DEBUG", "GCC_COLORS", "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
	"DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES", "LD_RUN_PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LD_SYMBOLIC",
	"LDEMULATION", "GNUTARGET", "COLLECT_NO_DEMANGLE", "COLLECT_GCC_OPTIONS", "COLLECT_GCC", "POSIXLY_CORRECT",
	"SOURCE_DATE_EPOCH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "TZ",
};

struct buffer {
	unsigned char *data;
	size_t size, capacity;
};

static struct buffer out;       /* the frame being written */
static struct buffer in;        /* the frame being read */
static size_t at;               /* how much of `in` is read */
static int wire = -1;
static char own_directory[PATH_MAX];
static char **arguments;
static const char *name;

static void local(void) __attribute__((noreturn));

static void put(const void *data, size_t size)
{
	if (out.size + size > out.capacity) {
		out.capacity = (out.size + size) * 2;
		out.data = realloc(out.data, out.capacity);
		if (!out.data)
			local();
	}
	memcpy(out.data + out.size, data, size);
	out.size += size;
}

static void put_u8(unsigned value)
{
	unsigned char byte = value;
	put(&byte, 1);
}

static void put_u32(uint32_t value)
{
	value = htonl(value);
	put(&value, 4);
}

static void put_u64(uint64_t value)
{
	put_u32(value >> 32);
	put_u32((uint32_t)value);
}

static void put_bytes(const void *data, size_t size)
{
	put_u32(size);
	put(data, size);
}

static void put_string(const char *text)
{
	put_bytes(text, strlen(text));
}

static void begin_frame(void)
{
	out.size = 0;
	put_u32(0);
}

static void send_frame(void)
{
	uint32_t size = htonl(out.size - 4);
	size_t sent = 0;
	memcpy(out.data, &size, 4);
	while (sent < out.size) {
		ssize_t n = send(wire, out.data + sent, out.size - sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			local();
		sent += n;
	}
}

static void receive(void *data, size_t size)
{
	while (size) {
		ssize_t n = recv(wire, data, size, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			local();
		data = (char *)data + n;
		size -= n;
	}
}

static void receive_frame(void)
{
	uint32_t size;
	receive(&size, 4);
	size = ntohl(size);
	if (size > MAX_FRAME)
		local();
	if (size > in.capacity) {
		in.capacity = size;
		free(in.data);
		in.data = malloc(size);
		if (!in.data)
			local();
	}
	in.size = size;
	at = 0;
	receive(in.data, size);
}

static const unsigned char *get(size_t size)
{
	const unsigned char *data = in.data + at;
	if (size > in.size - at)
		local();
	at += size;
	return data;
}

static uint32_t get_u32(void)
{
	uint32_t value;
	memcpy(&value, get(4), 4);
	return ntohl(value);
}

static unsigned get_u8(void)
{
	return *get(1);
}

/* A string that lives as long as the process, which is not long. */
static char *get_string(void)
{
	uint32_t size = get_u32();
	const unsigned char *data = get(size);
	char *text = malloc((size_t)size + 1);
	if (!text)
		local();
	memcpy(text, data, size);
	text[size] = 0;
	return text;
}

/*
 * What tells two states of a file apart. All zero if the file is so young that it could change
 * again without changing it: file times advance with the clock's ticks only.
 */
static void put_stamp(const struct stat *st, int settled)
{
	struct timespec now, tick;
	int64_t age;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	clock_getres(CLOCK_REALTIME_COARSE, &tick);
	age = (now.tv_sec - st->st_ctim.tv_sec) * 1000000000LL + now.tv_nsec - st->st_ctim.tv_nsec;
	if (!settled && age < 2 * (tick.tv_sec * 1000000000LL + tick.tv_nsec)) {
		for (int i = 0; i < 5; i++)
			put_u64(0);
		return;
	}
	put_u64(st->st_dev);
	put_u64(st->st_ino);
	put_u64(st->st_size);
	put_u64(st->st_mtim.tv_sec * 1000000000ULL + st->st_mtim.tv_nsec);
	put_u64(st->st_ctim.tv_sec * 1000000000ULL + st->st_ctim.tv_nsec);
}

enum state { ABSENT, SAME, FILE_, DIRECTORY, OTHER };

/* Whether the stamp that was put last, at `mark`, is the one that the server has. */
static int same_stamp(size_t mark, const unsigned char *known)
{
	static const unsigned char none[40];
	return !memcmp(out.data + mark, known, 40) && memcmp(known, none, 40);
}

static int is_directory(DIR *directory, const struct dirent *entry)
{
	struct stat st;
	if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN)
		return entry->d_type == DT_DIR;
	return !fstatat(dirfd(directory), entry->d_name, &st, 0) && S_ISDIR(st.st_mode);
}

static void put_directory(const char *path, const struct stat *st, const unsigned char *known)
{
	size_t mark = out.size;
	uint32_t count = 0;
	char real[PATH_MAX];
	struct dirent *entry;
	DIR *directory;
	size_t count_at;

	put_u8(DIRECTORY);
	put_stamp(st, 0);
	if (same_stamp(mark + 1, known)) {
		out.size = mark;
		put_u8(SAME);
		return;
	}
	/* The server takes "a/../b" for "b", which is wrong where "a" is a symbolic link. */
	directory = realpath(path, real) && !strcmp(path, real) ? opendir(path) : NULL;
	if (!directory) {
		out.size = mark;
		put_u8(OTHER);
		return;
	}
	count_at = out.size;
	put_u32(0);
	while ((entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		put_u8(is_directory(directory, entry));
		put_string(entry->d_name);
		count++;
	}
	closedir(directory);
	count = htonl(count);
	memcpy(out.data + count_at, &count, 4);
}

static void put_file(int fd, const struct stat *st, const unsigned char *known)
{
	size_t mark = out.size;
	void *data;

	put_u8(FILE_);
	put_stamp(st, 0);
	if (same_stamp(mark + 1, known)) {
		out.size = mark;
		put_u8(SAME);
		return;
	}
	put_u8(!!(st->st_mode & 0111));
	if (!st->st_size) {
		put_u32(0);
		return;
	}
	data = st->st_size > MAX_FILE ? MAP_FAILED : mmap(NULL, st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED) {
		out.size = mark;
		put_u8(OTHER);
		return;
	}
	put_bytes(data, st->st_size);
	munmap(data, st->st_size);
}

static void put_state(const char *path, const unsigned char *known)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		put_u8(errno == ENOENT || errno == ENOTDIR ? ABSENT : OTHER);
		return;
	}
	if (fstat(fd, &st))
		put_u8(OTHER);
	else if (S_ISDIR(st.st_mode))
		put_directory(path, &st, known);
	else if (S_ISREG(st.st_mode))
		put_file(fd, &st, known);
	else
		put_u8(OTHER);
	close(fd);
}

static int is_source(const char *path)
{
	static const char *const suffixes[] = { ".c", ".cc", ".cpp", ".cxx", ".C", ".c++", ".i", ".ii", ".S", ".s" };
	const char *dot = strrchr(path, '.');
	if (!dot || path[0] == '-')
		return 0;
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
		if (!strcmp(dot, suffixes[i]))
			return 1;
	return 0;
}

/* The working directory, unless it is one that the server would have to know already to be worth it. */
static int put_listing(const char *cwd)
{
	static const unsigned char none[40];
	size_t mark = out.size, state;

	put_string(cwd);
	state = out.size;
	put_state(cwd, none);
	if (out.data[state] == DIRECTORY && out.size - state <= MAX_LISTING)
		return 1;
	out.size = mark;
	return 0;
}

/* What the server will surely ask for comes with the request, which saves a round trip. */
static void put_unasked(int argc, const char *cwd)
{
	static const unsigned char none[40];
	uint32_t count = 0;
	size_t count_at = out.size;
	struct stat st;

	put_u32(0);
	for (int i = 1; i < argc; i++) {
		if (!is_source(arguments[i]) || stat(arguments[i], &st) || !S_ISREG(st.st_mode) || st.st_size > MAX_EAGER)
			continue;
		put_string(arguments[i]);
		put_state(arguments[i], none);
		count++;
	}
	count += put_listing(cwd);
	count = htonl(count);
	memcpy(out.data + count_at, &count, 4);
}

static void send_request(int argc, const char *token)
{
	char cwd[PATH_MAX];
	const char *pwd = getenv("PWD");
	struct stat here, there;
	uint32_t count = 0;
	size_t count_at;

	/* Gcc takes $PWD's word for where it is, and writes it into debug information. */
	if (!getcwd(cwd, sizeof cwd) || (pwd && strcmp(pwd, cwd) && !stat(pwd, &there) && !stat(".", &here) &&
		there.st_dev == here.st_dev && there.st_ino == here.st_ino))
		local();
	begin_frame();
	put_string(VERSION);
	put_string(token);
	put_string(cwd);
	put_u32(argc);
	put_string(name);
	for (int i = 1; i < argc; i++)
		put_string(arguments[i]);
	count_at = out.size;
	put_u32(0);
	for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
		const char *value = getenv(variables[i]);
		if (!value)
			continue;
		put_string(variables[i]);
		put_string(value);
		count++;
	}
	count = htonl(count);
	memcpy(out.data + count_at, &count, 4);
	put_unasked(argc, cwd);
	send_frame();
}

static void answer_query(void)
{
	uint32_t count = get_u32();
	begin_frame();
	for (uint32_t i = 0; i < count; i++) {
		const unsigned char *known = get(40);
		put_state(get_string(), known);
	}
	send_frame();
}

/*
 * Write one output as the compiler does: an object is written over, a program replaces what was
 * there. Returns 0 and fills `st` if it went well.
 */
static int write_output(const char *path, int executable, const unsigned char *data, size_t size, struct stat *st)
{
	struct stat old;
	int fd;

	if (executable && !lstat(path, &old) && S_ISREG(old.st_mode))
		unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, executable ? 0777 : 0666);
	if (fd < 0)
		return -1;
	while (size) {
		ssize_t n = write(fd, data, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			close(fd);
			return -1;
		}
		data += n;
		size -= n;
	}
	if (fstat(fd, st)) {
		close(fd);
		return -1;
	}
	return close(fd);
}

/* A compiler that fails leaves no output, not even an old one. */
static int remove_output(const char *path, struct stat *st)
{
	memset(st, 0, sizeof *st);
	if (lstat(path, st) || !S_ISREG(st->st_mode))
		return 0;
	return unlink(path);
}

static void write_outputs(void)
{
	uint32_t count = get_u32();
	begin_frame();
	for (uint32_t i = 0; i < count; i++) {
		struct stat st;
		char *path = get_string();
		unsigned mode = get_u8(); /* 0 a file, 1 a program, 2 to be removed */
		uint32_t size = get_u32();
		const unsigned char *data = get(size);
		if (mode == 2 ? remove_output(path, &st) : write_output(path, mode, data, size, &st))
			local();
		/* Nobody else can have got at it within a tick: a process takes longer to start. */
		put_stamp(&st, 1);
	}
	send_frame();
}

static void print(int fd)
{
	uint32_t size = get_u32();
	const unsigned char *data = get(size);
	while (size) {
		ssize_t n = write(fd, data, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(1);
		data += n;
		size -= n;
	}
}

static void finish(void) __attribute__((noreturn));
static void finish(void)
{
	int status = get_u32();
	print(1);
	print(2);
	_exit(status);
}

/* PATH without the directory of this program and, if `plain`, without distcc's. */
static char *path_of_others(int plain)
{
	const char *path = getenv("PATH");
	char *rest = strdup(path ? path : "/usr/bin:/bin"), *result, *entry, *save = NULL;

	if (!rest || !(result = calloc(1, strlen(rest) + 1)))
		_exit(1);
	for (entry = strtok_r(rest, ":", &save); entry; entry = strtok_r(NULL, ":", &save)) {
		if (!strcmp(entry, own_directory) || (plain && strstr(entry, "distcc")))
			continue;
		if (*result)
			strcat(result, ":");
		strcat(result, entry);
	}
	return result;
}

static void run_next(int plain) __attribute__((noreturn));
static void run_next(int plain)
{
	setenv("PATH", path_of_others(plain), 1);
	arguments[0] = (char *)name;
	execvp(name, arguments);
	fprintf(stderr, "%s: %s\n", name, strerror(errno));
	_exit(127);
}

static void local(void)
{
	if (wire >= 0)
		close(wire);
	run_next(0);
}

static void put_stream(int fd)
{
	struct stat st;
	void *data = MAP_FAILED;
	if (!fstat(fd, &st) && st.st_size)
		data = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (data == MAP_FAILED)
		put_u32(0);
	else
		put_bytes(data, st.st_size);
}

/* Run the node's own compiler and let the server compare: what counts is what it made. */
static void audit(void) __attribute__((noreturn));
static void audit(void)
{
	static const unsigned char none[40];
	int status, streams[2] = { memfd_create("out", 0), memfd_create("err", 0) };
	uint32_t count = get_u32();
	pid_t child = fork();

	if (child < 0 || streams[0] < 0 || streams[1] < 0)
		local();
	if (!child) {
		dup2(streams[0], 1);
		dup2(streams[1], 2);
		run_next(1);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			_exit(1);
	status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	begin_frame();
	put_u32(status);
	put_stream(streams[0]);
	put_stream(streams[1]);
	for (uint32_t i = 0; i < count; i++)
		put_state(get_string(), none);
	send_frame();
	for (int i = 0; i < 2; i++) {
		char chunk[65536];
		ssize_t n;
		lseek(streams[i], 0, SEEK_SET);
		while ((n = read(streams[i], chunk, sizeof chunk)) > 0)
			if (write(i + 1, chunk, n) != n)
				_exit(1);
	}
	receive_frame(); /* the server has compared */
	_exit(status);
}

/* Questions about the compiler itself, which is asked them faster than the host. */
static int is_question(int argc)
{
	static const char *const beginnings[] = { "-print", "--print", "-dump", "--version", "--help", "--target-help" };
	static const char *const words[] = { "-", "-v", "-V", "-qversion" };
	int files = 0;
	for (int i = 1; i < argc; i++) {
		for (size_t n = 0; n < sizeof beginnings / sizeof *beginnings; n++)
			if (!strncmp(arguments[i], beginnings[n], strlen(beginnings[n])))
				return 1;
		for (size_t n = 0; n < sizeof words / sizeof *words; n++)
			if (!strcmp(arguments[i], words[n]))
				return 1;
		files += arguments[i][0] != '-';
	}
	return !files;
}

static void connect_to_address(const char *where)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char host[64];
	const char *colon = strchr(where, ':');
	int yes = 1;

	if (!colon || (size_t)(colon - where) >= sizeof host)
		local();
	memcpy(host, where, colon - where);
	host[colon - where] = 0;
	address.sin_port = htons(atoi(colon + 1));
	if (!inet_aton(host, &address.sin_addr))
		local();
	wire = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (wire < 0 || connect(wire, (struct sockaddr *)&address, sizeof address))
		local();
	setsockopt(wire, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

static void connect_to_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof address.sun_path)
		local();
	strcpy(address.sun_path, path);
	wire = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (wire < 0 || connect(wire, (struct sockaddr *)&address, sizeof address))
		local();
}

static void connect_to(const char *where)
{
	struct timeval timeout = { .tv_sec = TIMEOUT_S };

	if (*where == '/')
		connect_to_socket(where);
	else
		connect_to_address(where);
	setsockopt(wire, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	setsockopt(wire, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

int main(int argc, char **argv)
{
	/* ADDRESS:PORT or the socket of the server, and the job's token. */
	const char *where = getenv("CLUSTER_COMPILE"), *token = getenv("CLUSTER_COMPILE_TOKEN");
	const char *slash = strrchr(argv[0], '/');
	ssize_t size = readlink("/proc/self/exe", own_directory, sizeof own_directory - 1);

	arguments = argv;
	name = slash ? slash + 1 : argv[0];
	if (size > 0) {
		own_directory[size] = 0;
		*strrchr(own_directory, '/') = 0;
	}
	if (!where || !token || is_question(argc))
		local();
	connect_to(where);
	send_request(argc, token);
	for (;;) {
		receive_frame();
		switch (get_u8()) {
		case 'Q':
			answer_query();
			break;
		case 'W':
			write_outputs();
			break;
		case 'E':
			finish();
		case 'A':
			audit();
		default:
			local();
		}
	}
}
