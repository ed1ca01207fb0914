//! Sockets.

use super::{Hook, int, void};
use crate::triggers::sockets;

pub(super) const HOOKS: &[Hook] = &[
    int("socket_create", sockets::create, "net/socket.c", "__sock_create"),
    int("socket_post_create", sockets::create, "net/socket.c", "__sock_create"),
    int("socket_socketpair", sockets::make_pair, "net/socket.c", "__sys_socketpair"),
    int("socket_bind", sockets::bind_udp, "net/socket.c", "__sys_bind_socket"),
    int("socket_connect", sockets::connect_udp, "net/socket.c", "__sys_connect_file"),
    int("socket_listen", sockets::start_listening, "net/socket.c", "__sys_listen_socket"),
    int("socket_accept", sockets::accept, "net/socket.c", "do_accept"),
    int("socket_sendmsg", sockets::send_datagram, "net/socket.c", "__sock_sendmsg"),
    int("socket_recvmsg", sockets::receive_datagram, "net/socket.c", "sock_recvmsg"),
    int("socket_getsockname", sockets::own_name, "net/socket.c", "__sys_getsockname"),
    int("socket_getpeername", sockets::peer_name, "net/socket.c", "__sys_getpeername"),
    int("socket_getsockopt", sockets::get_option, "net/socket.c", "do_sock_getsockopt"),
    int("socket_setsockopt", sockets::set_option, "net/socket.c", "do_sock_setsockopt"),
    int("socket_shutdown", sockets::shut_down, "net/socket.c", "__sys_shutdown_sock"),
    int("unix_stream_connect", sockets::connect_stream, "net/unix/af_unix.c", "unix_stream_connect"),
    int("unix_may_send", sockets::send_datagram, "net/unix/af_unix.c", "unix_dgram_sendmsg"),
    int("unix_find", sockets::connect_stream, "net/unix/af_unix.c", "unix_find_bsd").read_in("7.1"),
    int("sk_alloc_security", sockets::create, "net/core/sock.c", "sk_prot_alloc"),
    void("sk_free_security", sockets::close, "net/core/sock.c", "sk_prot_free"),
    void("sock_graft", sockets::accept, "include/net/sock.h", "sock_graft"),
    int("netlink_send", sockets::send_netlink, "net/netlink/af_netlink.c", "netlink_sendmsg"),
];
