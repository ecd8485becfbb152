/*
 * What the environment says to Swift programs is not said to the library: whatever it
 * asks for, loading and using it prints nothing and leaves signals as they were. What it
 * says to the library and gets wrong is told to the host's log. Programs that the host
 * starts get no file that the library has open.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mla_prefill.h"

static const char *const variables[][2] = {
    {"SWIFT_BACKTRACE", "enable=yes,swift-backtrace=/bin/true,unheard-of=1"},
    {"SWIFT_DEBUG_HELP", "1"},
    {"SWIFT_DEBUG_UNHEARD_OF", "1"},
    {"SWIFT_DETERMINISTIC_HASHING", "neither"},
    {"SWIFT_ENABLE_MANGLED_NAME_VERIFICATION", "1"},
    {"SWIFT_DEBUG_ENABLE_MALLOC_SCRIBBLE", "1"},
    {"SWIFT_DEBUG_ENABLE_METADATA_ALLOCATION_ITERATION", "1"},
    {"SWIFT_DEBUG_ENABLE_METADATA_BACKTRACE_LOGGING", "1"},
    {"SWIFT_DEBUG_FAILED_TYPE_LOOKUP", "1"},
    {"SWIFT_DEBUG_ENABLE_LIB_PRESPECIALIZED_LOGGING", "1"},
    {"SWIFT_BINARY_COMPATIBILITY_VERSION", "0x50000"},
    {"SWIFT_DUMP_ACCESSIBLE_FUNCTIONS", "1"},
    {"MLA_MAX_ISA", "avx9"},
};

static const int signals[] = {SIGSEGV, SIGBUS,  SIGILL,  SIGFPE,
                              SIGABRT, SIGTRAP, SIGQUIT, SIGUSR1};
enum { signal_count = sizeof(signals) / sizeof(signals[0]) };

static int told;

static void listen(void *context, int32_t level, const char *message) {
  (void)context;
  if (level == MLA_LOG_WARNING && strstr(message, "MLA_MAX_ISA = avx9: ignored") != NULL) ++told;
}

/* In the library's way: files it opens, and those of them that a program started meanwhile
   would have. */
static int opened, inherited;

int open(const char *path, int flags, ...) {
  ++opened;
  inherited += (flags & O_CLOEXEC) == 0;
  return openat(AT_FDCWD, path, flags);
}

/** In a process whose library was loaded with the variables set; 0 if all is well. */
static int use(void) {
  mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;
  mla_backend_config object = MLA_BACKEND_CONFIG_INIT;
  mla_backend_list *list;
  mla_backend *backend;
  if (mla_cpu_summary()[0] == '\0' || mla_backend_list_create(&config, &list) != MLA_OK) return 2;
  mla_backend_list_destroy(list);
  object.num_heads = 2;
  object.scale = 1;
  object.qk_nope_head_dim = object.v_head_dim = 32;
  if (mla_backend_create("TOKENSPEED_MLA", &object, &backend) != MLA_OK) return 3;
  mla_backend_destroy(backend);
  for (size_t i = 0; i < signal_count; ++i) {
    struct sigaction action;
    if (sigaction(signals[i], NULL, &action) != 0 || action.sa_handler != SIG_DFL) return 4;
  }
  for (int each = 1; each <= 2; ++each) {
    if (mla_set_log_callback(listen, NULL) != MLA_OK || told != each) return 6;
  }
  /* Control groups, and the process's threads. */
  if (mla_set_num_threads(0) != MLA_OK || mla_get_num_threads() < 1 || opened < 3) return 7;
  return inherited == 0 ? 0 : 8;
}

int main(int argc, char **argv) {
  FILE *said = tmpfile();
  struct stat size;
  int status = -1;
  pid_t child;
  if (argc > 1) return use();
  if (said == NULL) return 2;
  child = fork();
  if (child == 0) {
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); ++i) {
      setenv(variables[i][0], variables[i][1], 1);
    }
    /* Whoever started this may ignore some: shells do for what runs in the background. */
    for (size_t i = 0; i < signal_count; ++i) signal(signals[i], SIG_DFL);
    dup2(fileno(said), STDOUT_FILENO);
    dup2(fileno(said), STDERR_FILENO);
    execl(argv[0], argv[0], "use", (char *)NULL);
    _exit(5);
  }
  if (child < 0 || waitpid(child, &status, 0) != child || fstat(fileno(said), &size) != 0) return 2;
  printf("%s environment: ended with %d, %d bytes said\n",
         status == 0 && size.st_size == 0 ? "ok" : "not ok", status, (int)size.st_size);
  return status != 0 || size.st_size != 0;
}
