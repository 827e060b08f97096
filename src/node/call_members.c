/* call_members.c - the command line's side of REMOVE, LEAVE, TRANSFER and ROTATE_CA. */
#include "call.h"

#include <errno.h>

/* So long a request may take, that needs other nodes: a membership change under way is waited
 * for, and without a majority the node answers after its grace. */
enum { CALL_CHANGE_TIMEOUT_MS = 60 * 1000 };

static int check_name(const char *what, const char *name, char error[NODE_ERROR_BYTES])
{
    if (node_name_valid(name))
        return 0;
    return node_error(error, -EINVAL,
                      "cannot %s: \"%.300s\" is not the name of a node; see `tierce "
                      "members`",
                      what, name);
}

int node_call_remove(const char *data, const char *name, char error[NODE_ERROR_BYTES])
{
    struct call c;
    char what[LIMIT_NAME_BYTES + 16];
    int result = check_name("remove a member", name, error);
    if (result)
        return result;
    snprintf(what, sizeof(what), "remove %s", name);
    result = call_open(&c, data, what, error);
    if (!result) {
        buf_cstring(call_begin(&c, CONTROL_REMOVE), name);
        result = call_ask(&c, CALL_CHANGE_TIMEOUT_MS, error);
    }
    call_close(&c);
    return result;
}

int node_call_transfer(const char *data, const char *name,
                       char ret_leader[LIMIT_NAME_BYTES + 1],
                       char error[NODE_ERROR_BYTES])
{
    struct call c;
    int result = name[0] ? check_name("hand leadership over", name, error) : 0;
    if (result)
        return result;
    result = call_open(&c, data, "hand leadership over", error);
    if (!result) {
        buf_cstring(call_begin(&c, CONTROL_TRANSFER), name);
        result = call_ask(&c, CALL_CHANGE_TIMEOUT_MS, error);
    }
    size_t length = result ? 0 : reader_left(&c.fields);
    if (!result && (!length || length > LIMIT_NAME_BYTES))
        result = call_bad_answer(&c, error);
    if (!result) {
        memcpy(ret_leader, c.fields.at, length);
        ret_leader[length] = 0;
    }
    call_close(&c);
    return result;
}

int node_call_rotate_ca(const char *data, uint32_t *ret_last, bool *ret_begun,
                        char error[NODE_ERROR_BYTES])
{
    struct call c;
    int result = call_open(&c, data, "replace the cluster's CA", error);
    if (!result) {
        call_begin(&c, CONTROL_ROTATE_CA);
        result = call_ask(&c, CALL_CHANGE_TIMEOUT_MS, error);
    }
    uint32_t step = result ? 0 : reader_u32(&c.fields);
    uint32_t last = result ? 0 : reader_u32(&c.fields);
    uint8_t begun = result ? 0 : reader_u8(&c.fields);
    if (!result && (!reader_done(&c.fields) || last < step || begun > 1))
        result = call_bad_answer(&c, error);
    if (!result) {
        *ret_last = last;
        *ret_begun = begun;
    }
    call_close(&c);
    return result;
}

int node_call_leave(const char *data, char error[NODE_ERROR_BYTES])
{
    return call_until_end(data, CONTROL_LEAVE, "leave the cluster", error);
}
