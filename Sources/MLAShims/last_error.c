#include "mla_shims_last_error.h"

#include "mla_shims_memory.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct message_slot {
  size_t capacity;
  char text[];
} message_slot;

enum {
  longest_message = (64 << 10) - 1,
  // A slot for so much may come from the reserve; a thread keeps it.
  short_message = 512,
};

// A pointer rather than a buffer: a message of any length fits, and a thread that
// never fails costs nothing. Initial-exec: see lock.c.
static _Thread_local message_slot *own_slot __attribute__((tls_model("initial-exec")));

// Frees a thread's slot when the thread ends.
static pthread_key_t slot_key;
static int have_key;

// Shared by the threads that got no memory; with no capacity it is never written.
static message_slot no_memory = {0, "there was no memory for the message"};

static void release_slot(void *slot) {
  if (slot != &no_memory) free(slot);
}

static void release_own_slot(void *slot) {
  own_slot = NULL;
  release_slot(slot);
}

// Not on first use: a forked child could find a once-flag that another thread
// of its parent was about to set.
__attribute__((constructor)) static void create_key(void) {
  have_key = pthread_key_create(&slot_key, release_own_slot) == 0;
}

static int set_own_slot(message_slot *slot) {
  if (!have_key || pthread_setspecific(slot_key, slot) != 0) return 0;
  own_slot = slot;
  return 1;
}

// The thread's slot, with at least `capacity` bytes if memory allows.
static message_slot *own_slot_for(size_t capacity) {
  message_slot *slot = own_slot;
  if (slot && slot->capacity >= capacity) return slot;
  size_t rounded = short_message;
  message_slot *larger = NULL;
  if (capacity > short_message) {
    larger = mla_shim_try_allocate(_Alignof(message_slot) * 2, sizeof(message_slot) + capacity);
    if (larger) rounded = capacity;
  }
  if (!larger && (!slot || slot->capacity == 0)) {
    larger = malloc(sizeof(message_slot) + short_message);
  }
  if (!larger && slot) return slot;
  if (larger && set_own_slot(larger)) {
    larger->capacity = rounded;
    release_slot(slot);
  } else {
    free(larger);
    // What the system cannot note for the thread's end is not the heap's.
    if (!slot) own_slot = &no_memory;
  }
  return own_slot;
}

void mla_shim_set_last_error(const char *message) {
  if (!message) message = "";
  size_t length = strnlen(message, longest_message);
  if (length == 0 && !own_slot) return;
  message_slot *slot = own_slot_for(length + 1);
  if (slot->capacity == 0) return;
  if (length >= slot->capacity) length = slot->capacity - 1;
  memmove(slot->text, message, length);
  slot->text[length] = '\0';
}

const char *mla_shim_last_error(void) { return own_slot ? own_slot->text : ""; }

void *mla_shim_set_aside_last_error(void) {
  message_slot *slot = own_slot;
  if (!slot || !set_own_slot(NULL)) own_slot = NULL;
  return slot;
}

void mla_shim_put_back_last_error(void *set_aside) {
  message_slot *slot = own_slot;
  if (slot == set_aside) return;
  if (!set_own_slot(set_aside)) own_slot = set_aside;
  release_slot(slot);
}
