/*
 * mount_fixture.h - what the tests of a real mount share: one mount over a name space in memory,
 * for one test at a time. Needs root and /dev/fuse.
 */
#ifndef TIERCE_TEST_MOUNT_FIXTURE_H
#define TIERCE_TEST_MOUNT_FIXTURE_H

#include "test_mount_backend.h"

extern struct backend backend;
extern struct fs_mount *mount_; /* NULL: a test has ended it itself */
extern char directory[];        /* where it is; made by mount_tests_begin() */

/* Around main's tests, which hang where they take longer than MOUNT_TEST_SECONDS (a set-up may
 * begin that anew); argv[1] is a filter of their names. */
enum { MOUNT_TEST_SECONDS = 100 };
void mount_tests_begin(int argc, char **argv);
void mount_tests_end(void);

/* After backend_start(); `options` as after -o, or NULL. */
int mount_up(const char *options);
/* A teardown of cmocka's: ends what still runs. */
int mount_down(void **state);

/* A path in the mount; the last four are kept. */
const char *at(const char *name);
void must(int result);
void assert_fails(ssize_t result, int error);

#endif
