//! Netfilter's tables, with an object that gives packets a label.

use super::netlink::{Message, Netlink, attribute};
use super::{Act, Arm, act, modules};
use crate::errno::Errno;

/// include/uapi/linux/netfilter/nfnetlink.h: NFNL_SUBSYS_NFTABLES, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END.
const TABLES: u16 = 10;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// include/uapi/linux/netfilter/nf_tables.h: NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWOBJ.
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_OBJECT: u16 = 18;
/// The same: NFT_OBJECT_SECMARK.
const SECMARK: u32 = 8;
/// include/uapi/linux/netfilter.h: NFPROTO_IPV4.
const IPV4: u8 = 2;
/// include/uapi/linux/netlink.h: NLA_F_NESTED.
const NESTED: u16 = 0x8000;

const TABLE: &[u8] = b"conform\0";

/// `struct nfgenmsg`: a family, version 0, and which subsystem a batch is for.
fn head(family: u8, subsystem: u16) -> Vec<u8> {
    let mut bytes = vec![family, 0];
    bytes.extend(subsystem.to_be_bytes());
    bytes
}

fn message(kind: u16, attributes: &[Vec<u8>]) -> Message {
    let body = [head(IPV4, 0), attributes.concat()].concat();
    Message { kind: TABLES << 8 | kind, body }
}

/// Does these things together, or none of them.
fn batch(socket: &Netlink, messages: Vec<Message>) -> Result<(), Errno> {
    let mut all = vec![Message { kind: BEGIN, body: head(0, TABLES) }];
    all.extend(messages);
    all.push(Message { kind: END, body: head(0, TABLES) });
    socket.ask_together(&all)
}

/// A table (NFTA_TABLE_NAME) with an object in it: NFTA_OBJ_TABLE, _NAME, _TYPE, _DATA, and in this NFTA_SECMARK_CTX, a
/// label that AppArmor knows by that name.
fn labelling() -> Vec<Message> {
    let data = attribute(1, b"unconfined\0");
    let object = [
        attribute(1, TABLE),
        attribute(2, b"label\0"),
        attribute(3, &SECMARK.to_be_bytes()),
        attribute(4 | NESTED, &data),
    ];
    vec![message(NEW_TABLE, &[attribute(1, TABLE)]), message(NEW_OBJECT, &object)]
}

fn without_it() -> Vec<Message> {
    vec![message(DELETE_TABLE, &[attribute(1, TABLE)])]
}

fn netfilter() -> Result<Netlink, Errno> {
    modules::load(&["libcrc32c", "nfnetlink", "nf_tables"])?;
    Netlink::open(libc::NETLINK_NETFILTER)
}

/// `sendto(2)` of such a table.
///
/// # Errors
/// The errno of making the socket.
pub fn label_packets() -> Result<Act, Errno> {
    let netfilter = netfilter()?;
    act(move |arm: Arm| {
        arm.during(|| batch(&netfilter, labelling()))?;
        batch(&netfilter, without_it())
    })
}

/// The end of such an object, some time after its table's.
///
/// # Errors
/// The errno of making the socket.
pub fn end() -> Result<Act, Errno> {
    let netfilter = netfilter()?;
    act(move |arm: Arm| {
        batch(&netfilter, labelling())?;
        if !arm.is_idle() {
            Arm::until_freed(); // what was ended before (6.9 net/netfilter/nf_tables_api.c, nf_tables_trans_destroy_work)
        }
        arm.freeing(0, || batch(&netfilter, without_it()))
    })
}
