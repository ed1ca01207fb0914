//! Sockets.

use super::Hook;
use super::bare::{int, void};
use crate::triggers::{audit, known, labels, sockets};

const UNIX: u64 = libc::AF_UNIX.cast_unsigned() as u64;
const INET: u64 = libc::AF_INET.cast_unsigned() as u64;
/// From a socket to its family.
const FAMILY: &str = "socket.sk sock.__sk_common.skc_family";
/// From a socket to its own port.
const PORT: &str = "sock.__sk_common.skc_num";
const OF_SOCK: &str = "sock.__sk_common.skc_family";

pub(super) const HOOKS: &[Hook] = &[
    int("socket_create", sockets::create, "net/socket.c", "__sock_create").number("family", libc::AF_UNIX),
    int("socket_post_create", sockets::create, "net/socket.c", "__sock_create")
        .number("type", libc::SOCK_STREAM),
    int("socket_socketpair", sockets::make_pair, "net/socket.c", "__sys_socketpair")
        .member("socka", FAMILY, UNIX),
    int("socket_bind", sockets::bind_udp, "net/socket.c", "__sys_bind_socket").number("addrlen", 16),
    int("socket_connect", sockets::connect_udp, "net/socket.c", "__sys_connect_file").number("addrlen", 16),
    int("socket_listen", sockets::start_listening, "net/socket.c", "__sys_listen_socket")
        .with_files()
        .number("backlog", 1),
    int("socket_accept", sockets::accept, "net/socket.c", "do_accept")
        .with_files()
        .member("sock", FAMILY, UNIX),
    int("socket_sendmsg", sockets::send_datagram, "net/socket.c", "__sock_sendmsg").number("size", 1),
    int("socket_recvmsg", sockets::receive_datagram, "net/socket.c", "sock_recvmsg")
        .number("flags", libc::MSG_DONTWAIT),
    int("socket_getsockname", sockets::own_name, "net/socket.c", "__sys_getsockname")
        .member("sock", FAMILY, INET),
    int("socket_getpeername", sockets::peer_name, "net/socket.c", "__sys_getpeername")
        .member("sock", FAMILY, INET),
    int("socket_getsockopt", sockets::get_option, "net/socket.c", "do_sock_getsockopt")
        .number("optname", libc::SO_SNDBUF),
    int("socket_setsockopt", sockets::set_option, "net/socket.c", "do_sock_setsockopt")
        .number("optname", libc::SO_SNDBUF),
    int("socket_shutdown", sockets::shut_down, "net/socket.c", "__sys_shutdown_sock")
        .number("how", libc::SHUT_WR),
    // The packet is dropped: neither end is told.
    int("socket_sock_rcv_skb", sockets::send_udp, "net/core/filter.c", "sk_filter_trim_cap")
        .object(0, PORT)
        .member("sk", OF_SOCK, INET),
    // The default is 0 up to 6.7, but for late releases of 5.10, and anything else ends the asking; -ENOPROTOOPT later, which
    // the kernel makes of a program's 0.
    int("socket_getpeersec_stream", sockets::peer_label, "net/core/sock.c", "sk_getsockopt")
        .asked_first()
        .member("sock", FAMILY, INET),
    // SELinux gives a number to each sender; AppArmor to none, so that there is nothing to ask about.
    int("secid_to_secctx", labels::number_to_name, "include/net/scm.h", "scm_passec")
        .passing(-libc::EOPNOTSUPP)
        .mute_where(labels::UNLABELLED)
        .asked_before_selinux(),
    // Asked of every datagram. What it returns is dropped, but it keeps SELinux from being asked: the message has number 0
    // then, for which there is no name (5.9 security/selinux/ss/services.c, security_sid_to_context_core), and comes
    // without a label. Its default is as that of socket_getpeersec_stream.
    int("socket_getpeersec_dgram", labels::send_labelled, "include/net/scm.h", "unix_get_peersec_dgram")
        .mute_where(labels::UNLABELLED)
        .asked_before_selinux()
        .member("sock", FAMILY, UNIX),
    int("unix_stream_connect", sockets::connect_stream, "net/unix/af_unix.c", "unix_stream_connect")
        .with_files()
        .member("sock", OF_SOCK, UNIX),
    int("unix_may_send", sockets::send_datagram, "net/unix/af_unix.c", "unix_dgram_sendmsg")
        .member("other", FAMILY, UNIX),
    int("unix_find", sockets::connect_stream, "net/unix/af_unix.c", "unix_find_bsd")
        .with_files()
        .read_in("7.1")
        .known("path", super::OF_PATH, || known::inode("/tmp/connected")),
    int("sk_alloc_security", sockets::create, "net/core/sock.c", "sk_prot_alloc")
        .number("family", libc::AF_UNIX),
    void("sk_free_security", sockets::close, "net/core/sock.c", "sk_prot_free").member("sk", OF_SOCK, UNIX),
    void("sk_clone_security", sockets::ask_listener, "net/core/sock.c", "sock_copy")
        .object(0, PORT)
        .member("sk", OF_SOCK, INET),
    void("sk_getsecid", sockets::connect_tcp, "security/security.c", "security_sk_classify_flow")
        .uncounted()
        .member("sk", OF_SOCK, INET),
    void("sock_graft", sockets::accept, "include/net/sock.h", "sock_graft")
        .with_files()
        .member("sk", OF_SOCK, UNIX),
    // The other end is not told: it tries again after a second.
    int("inet_conn_request", sockets::ask_listener, "net/ipv4/tcp_ipv4.c", "tcp_v4_route_req")
        .object(0, PORT)
        .member("sk", OF_SOCK, INET),
    void("inet_csk_clone", sockets::ask_listener, "net/ipv4/inet_connection_sock.c", "inet_csk_clone_lock")
        .object(0, PORT)
        .member("newsk", OF_SOCK, INET),
    void("inet_conn_established", sockets::answer_client, "net/ipv4/tcp_input.c", "tcp_finish_connect")
        .object(0, "sock.__sk_common.skc_dport")
        .member("sk", OF_SOCK, INET),
    void("req_classify_flow", sockets::ask_listener, "net/ipv4/inet_connection_sock.c", "inet_csk_route_req")
        .object(0, "request_sock.__req_common.skc_num")
        .uncounted(),
    // Called for what the kernel answers by itself, and any answer but 0 stops it: BUG_ON(rc). Up to 6.11, but for late
    // releases of 6.1, it asks once more, on its way back to the sender, also where that is this machine (6.11
    // net/ipv4/icmp.c, icmp_route_lookup).
    int("xfrm_decode_session", sockets::send_to_nobody, "security/security.c", "security_skb_classify_flow")
        .read_in("6.1")
        .anyone()
        .crashing(),
    int("mptcp_add_subflow", sockets::bind_mptcp, "net/mptcp/subflow.c", "mptcp_subflow_create_socket")
        .member("ssk", OF_SOCK, INET),
    int("netlink_send", sockets::send_netlink, "net/netlink/af_netlink.c", "netlink_sendmsg").member(
        "skb",
        "sk_buff.len",
        16,
    ),
    int(
        "secctx_to_secid",
        audit::name_to_number,
        "net/netlabel/netlabel_unlabeled.c",
        "netlbl_unlabel_staticadd",
    )
    .text("secdata", "unconfined"),
];
