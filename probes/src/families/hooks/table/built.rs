//! Hooks of what Debian's kernels leave out and those built with the fragments in `kernels/` have: watches, binder.

use super::{Hook, int};
use crate::triggers::{binder, keys, known};

/// The group of whose credentials an argument is. Up to 5.15, but for late releases of 5.10 and 5.15, it is the task.
const GROUP: &str = "cred.egid | task_struct.cred cred.egid";
const SENDER: u64 = binder::SENDER as u64;
const SERVER: u64 = binder::SERVER as u64;

pub(super) const HOOKS: &[Hook] = &[
    int("watch_key", keys::watched, "security/keys/keyctl.c", "keyctl_watch_key").read_in("5.8").text_at(
        "key",
        "key.type key_type.name",
        "user",
    ),
    // Whom a program denies does not hear of it, nor does who changed the key.
    int("post_notification", keys::change_watched, "kernel/watch_queue.c", "__post_watch_notification")
        .read_in("5.8")
        .member("n", "watch_notification.info", keys::NOTE as u64),
    int("binder_set_context_mgr", binder::manage, "drivers/android/binder.c", "binder_ioctl_set_ctx_mgr")
        .read_in("5.8")
        .member("mgr", GROUP, SENDER),
    // The driver asks whether the verdict is one and hands no errno on: the sender reads BR_FAILED_REPLY.
    int("binder_transaction", binder::send, "drivers/android/binder.c", "binder_transaction")
        .read_in("5.8")
        .member("from", GROUP, SENDER),
    int("binder_transfer_binder", binder::send_object, "drivers/android/binder.c", "binder_translate_binder")
        .read_in("5.8")
        .member("to", GROUP, SERVER),
    int("binder_transfer_file", binder::send_file, "drivers/android/binder.c", "binder_translate_fd")
        .read_in("5.8")
        .known("file", super::OF_FILE, || known::inode("/dev/null")),
];
