#include "mla_shims_last_error.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct message_slot {
  size_t capacity;
  char text[];
} message_slot;

// A key rather than a thread-local buffer: a message of any length fits, it is
// freed when its thread ends, and a thread that never fails costs nothing.
static pthread_key_t slot_key;
static int have_key;

// Shared by the threads that got no memory; with no capacity it is never written.
static message_slot no_memory = {0, "there was no memory for the message"};

static void release_slot(void *slot) {
  if (slot != &no_memory) free(slot);
}

// Not on first use: a forked child could find a once-flag that another thread
// of its parent was about to set.
__attribute__((constructor)) static void create_key(void) {
  have_key = pthread_key_create(&slot_key, release_slot) == 0;
}

static message_slot *own_slot(void) {
  return have_key ? pthread_getspecific(slot_key) : NULL;
}

// The thread's slot, with at least `capacity` bytes if memory allows.
static message_slot *own_slot_for(size_t capacity) {
  message_slot *slot = own_slot();
  if (!have_key || (slot && slot->capacity >= capacity)) return slot;
  size_t rounded = (capacity + 255) / 256 * 256;
  message_slot *larger = malloc(sizeof(message_slot) + rounded);
  if (larger) {
    larger->capacity = rounded;
  } else if (!slot) {
    larger = &no_memory;
  } else {
    return slot;
  }
  if (pthread_setspecific(slot_key, larger) != 0) {
    release_slot(larger);
    return slot;
  }
  release_slot(slot);
  return larger;
}

void mla_shim_set_last_error(const char *message) {
  if (!message) message = "";
  size_t length = strlen(message);
  if (length == 0 && !own_slot()) return;
  message_slot *slot = own_slot_for(length + 1);
  if (!slot || slot->capacity == 0) return;
  if (length >= slot->capacity) length = slot->capacity - 1;
  memmove(slot->text, message, length);
  slot->text[length] = '\0';
}

const char *mla_shim_last_error(void) {
  const message_slot *slot = own_slot();
  return slot ? slot->text : "";
}

void *mla_shim_set_aside_last_error(void) {
  message_slot *slot = own_slot();
  return slot && pthread_setspecific(slot_key, NULL) == 0 ? slot : NULL;
}

void mla_shim_put_back_last_error(void *set_aside) {
  message_slot *slot = own_slot();
  if (slot == set_aside || !have_key || pthread_setspecific(slot_key, set_aside) != 0) return;
  release_slot(slot);
}
