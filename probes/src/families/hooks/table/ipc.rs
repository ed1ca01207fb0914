//! System V objects and keys.

use super::bare::{int, void};
use super::{Expect, Hook, Read};
use crate::errno::Errno;
use crate::triggers::{creds, ipc, keys};

/// The key of the recipes that make an object with one.
const KEY: u64 = ipc::KEY.cast_unsigned() as u64;
const OF: &str = "kern_ipc_perm.key";

pub(super) const HOOKS: &[Hook] = &[
    // Who asks ipcperms says EACCES if it does not say 0 (5.12 and 7.3 ipc/sem.c, do_semtimedop, __do_semtimedop).
    int("ipc_permission", ipc::semop, "ipc/util.c", "ipcperms")
        .answered_with(Errno::EACCES)
        .number("flag", 0o222),
    int("msg_queue_alloc_security", ipc::msgget, "ipc/msg.c", "newque").argument(
        "perm",
        Read::Bits("kern_ipc_perm.mode", 0o777),
        Expect::Is(0o600),
    ),
    // The last of a System V object goes after a grace period, in whatever task that falls.
    void("msg_queue_free_security", ipc::free_queue, "ipc/msg.c", "msg_rcu_free").object(0, OF).argument(
        "perm",
        Read::Bits("kern_ipc_perm.mode", 0o777),
        Expect::Is(0o600),
    ),
    int("msg_queue_associate", ipc::find_queue, "ipc/msg.c", "ksys_msgget").member("perm", OF, KEY),
    int("msg_queue_msgctl", ipc::stat_queue, "ipc/msg.c", "msgctl_stat").number("cmd", libc::IPC_STAT),
    int("msg_msg_alloc_security", ipc::msgsnd, "ipc/msgutil.c", "load_msg"),
    void("msg_msg_free_security", ipc::msgrcv, "ipc/msgutil.c", "free_msg").member("msg", "msg_msg.m_ts", 8),
    int("msg_queue_msgsnd", ipc::msgsnd, "ipc/msg.c", "do_msgsnd").member("msg", "msg_msg.m_ts", 8),
    int("msg_queue_msgrcv", ipc::msgrcv, "ipc/msg.c", "find_msg").member("msg", "msg_msg.m_type", 1),
    int("shm_alloc_security", ipc::shmget, "ipc/shm.c", "newseg").argument(
        "perm",
        Read::Bits("kern_ipc_perm.mode", 0o777),
        Expect::Is(0o600),
    ),
    void("shm_free_security", ipc::free_segment, "ipc/shm.c", "shm_rcu_free").object(0, OF).argument(
        "perm",
        Read::Bits("kern_ipc_perm.mode", 0o777),
        Expect::Is(0o600),
    ),
    int("shm_associate", ipc::find_segment, "ipc/shm.c", "ksys_shmget").member("perm", OF, KEY),
    int("shm_shmctl", ipc::stat_segment, "ipc/shm.c", "shmctl_stat").number("cmd", libc::IPC_STAT),
    int("shm_shmat", ipc::shmat, "ipc/shm.c", "do_shmat").number("shmflg", libc::SHM_RDONLY),
    int("sem_alloc_security", ipc::semget, "ipc/sem.c", "newary").argument(
        "perm",
        Read::Bits("kern_ipc_perm.mode", 0o777),
        Expect::Is(0o600),
    ),
    void("sem_free_security", ipc::free_set, "ipc/sem.c", "sem_rcu_free").object(0, OF).argument(
        "perm",
        Read::Bits("kern_ipc_perm.mode", 0o777),
        Expect::Is(0o600),
    ),
    int("sem_associate", ipc::find_set, "ipc/sem.c", "ksys_semget").member("perm", OF, KEY),
    int("sem_semctl", ipc::stat_set, "ipc/sem.c", "semctl_stat").number("cmd", libc::IPC_STAT),
    int("sem_semop", ipc::semop, "ipc/sem.c", "__do_semtimedop").number("nsops", 1),
    int("key_alloc", keys::add_key, "security/keys/key.c", "key_alloc").text_at(
        "key",
        "key.type key_type.name",
        "user",
    ),
    int("key_permission", keys::describe, "security/keys/permission.c", "key_task_permission").member(
        "cred",
        "cred.egid",
        creds::GROUP as u64,
    ),
    void("key_post_create_or_update", keys::add_key, "security/keys/key.c", "__key_create_or_update")
        .number("payload_len", 6),
    // The size of a label, of which there is none: 0.
    int("key_getsecurity", keys::label, "security/keys/keyctl.c", "keyctl_get_security")
        .read_in("6.0")
        .text_at("key", "key.type key_type.name", "user"),
    void("key_free", keys::end, "security/keys/gc.c", "key_gc_unused_keys")
        .read_in("6.0")
        .object(0, "key.serial"),
    int("cred_alloc_blank", keys::session_to_parent, "kernel/cred.c", "cred_alloc_blank"),
    void(
        "cred_transfer",
        keys::session_from_child,
        "security/keys/process_keys.c",
        "key_change_session_keyring",
    ),
];
