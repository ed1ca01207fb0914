//! System V objects and keys.

use super::{Hook, int, void};
use crate::triggers::{ipc, keys};

pub(super) const HOOKS: &[Hook] = &[
    int("ipc_permission", ipc::semop, "ipc/util.c", "ipcperms"),
    int("msg_queue_alloc_security", ipc::msgget, "ipc/msg.c", "newque"),
    int("msg_msg_alloc_security", ipc::msgsnd, "ipc/msgutil.c", "load_msg"),
    void("msg_msg_free_security", ipc::msgrcv, "ipc/msgutil.c", "free_msg"),
    int("msg_queue_msgsnd", ipc::msgsnd, "ipc/msg.c", "do_msgsnd"),
    int("msg_queue_msgrcv", ipc::msgrcv, "ipc/msg.c", "find_msg"),
    int("shm_shmat", ipc::shmat, "ipc/shm.c", "do_shmat"),
    int("sem_semop", ipc::semop, "ipc/sem.c", "__do_semtimedop"),
    int("key_alloc", keys::add_key, "security/keys/key.c", "key_alloc"),
    int("key_permission", keys::describe, "security/keys/permission.c", "key_task_permission"),
    void("key_post_create_or_update", keys::add_key, "security/keys/key.c", "__key_create_or_update"),
];
