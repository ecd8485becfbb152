// One message per thread.
#ifndef MLA_SHIMS_LAST_ERROR_H
#define MLA_SHIMS_LAST_ERROR_H

// Copies at most a mebibyte; NULL means "". `message` may be what the getter returned.
// Where memory is short the message is cut, or replaced by one that says so.
void mla_shim_set_last_error(const char *message);

// Valid until the thread sets another or ends; never NULL.
const char *mla_shim_last_error(void);

// Foreign code is about to run that may set a message: the thread's own goes out
// of its way, and comes back at the same address.
void *mla_shim_set_aside_last_error(void);
void mla_shim_put_back_last_error(void *set_aside);

#endif  // MLA_SHIMS_LAST_ERROR_H
