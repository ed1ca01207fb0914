//! Layouts of the attributes, and the real calls where this machine allows them (root, a kernel with BPF).
//!
//! Programs are loaded for verification and test runs only; nothing is attached to the machine that builds.

use std::mem::offset_of;

use super::info::{IdAttr, InfoAttr, RawBtfInfo, RawLinkInfo, RawMapInfo, RawProgInfo};
use super::link::{LinkCreateAttr, LinkUpdateAttr, PinAttr, RawTracepointAttr};
use super::map::{CreateAttr, ElementAttr};
use super::prog::{BtfLoadAttr, LoadAttr, TestAttr};
use super::*;

#[test]
fn layouts_are_the_headers() {
    assert_eq!(size_of::<CreateAttr>(), 72);
    assert_eq!((offset_of!(CreateAttr, map_name), offset_of!(CreateAttr, map_extra)), (28, 64));
    assert_eq!((size_of::<ElementAttr>(), offset_of!(ElementAttr, flags)), (32, 24));
    assert_eq!(size_of::<LoadAttr>(), 152);
    assert_eq!((offset_of!(LoadAttr, log_buf), offset_of!(LoadAttr, prog_name)), (32, 48));
    assert_eq!((offset_of!(LoadAttr, func_info), offset_of!(LoadAttr, line_info)), (80, 96));
    assert_eq!((offset_of!(LoadAttr, attach_btf_id), offset_of!(LoadAttr, attach_fd)), (108, 112));
    assert_eq!((offset_of!(LoadAttr, fd_array), offset_of!(LoadAttr, fd_array_cnt)), (120, 148));
    assert_eq!((size_of::<BtfLoadAttr>(), offset_of!(BtfLoadAttr, log_level)), (32, 24));
    assert_eq!((size_of::<TestAttr>(), offset_of!(TestAttr, ctx_in)), (80, 48));
    assert_eq!((size_of::<RawTracepointAttr>(), offset_of!(RawTracepointAttr, cookie)), (24, 16));
    assert_eq!((size_of::<LinkCreateAttr>(), offset_of!(LinkCreateAttr, cookie)), (32, 24));
    assert_eq!((size_of::<LinkUpdateAttr>(), size_of::<PinAttr>()), (16, 16));
    assert_eq!((size_of::<InfoAttr>(), size_of::<IdAttr>()), (16, 12));
}

#[test]
fn information_is_laid_out_as_in_the_header() {
    assert_eq!(size_of::<RawProgInfo>(), 232);
    assert_eq!((offset_of!(RawProgInfo, xlated), offset_of!(RawProgInfo, map_ids)), (32, 56));
    assert_eq!((offset_of!(RawProgInfo, name), offset_of!(RawProgInfo, netns)), (64, 88));
    assert_eq!((offset_of!(RawProgInfo, btf_id), offset_of!(RawProgInfo, run_time_ns)), (128, 192));
    assert_eq!(offset_of!(RawProgInfo, attach_btf_id), 224);
    assert_eq!((size_of::<RawMapInfo>(), offset_of!(RawMapInfo, btf_value_type_id)), (88, 72));
    assert_eq!((offset_of!(RawLinkInfo, words), offset_of!(RawLinkInfo, cookie)), (16, 32));
    assert_eq!((size_of::<RawBtfInfo>(), offset_of!(RawBtfInfo, btf)), (32, 0));
}

#[test]
fn attributes_are_passed_up_to_their_last_word() {
    assert_eq!(used(&LoadAttr::default()), 0);
    assert_eq!(used(&LoadAttr { attach_btf_id: 1, ..LoadAttr::default() }), 112);
    assert_eq!(used(&LoadAttr { prog_name: object_name("abc"), ..LoadAttr::default() }), 52);
    assert_eq!(used(&RawTracepointAttr { prog_fd: 3, ..RawTracepointAttr::default() }), 12);
}

#[test]
fn names_are_made_acceptable() {
    assert_eq!(&object_name("hooks/file_open-and-more"), b"hooks_file_open\0");
    assert_eq!(field_text(&object_name("a.b")), "a.b");
}

#[test]
fn tables_and_constants_agree_with_well_known_numbers() {
    assert_eq!((BPF_PROG_TYPE_LSM, BPF_LSM_MAC, BPF_LSM_CGROUP), (29, 27, 43));
    assert_eq!((BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_CGRP_STORAGE, BPF_LINK_CREATE), (27, 32, 28));
    assert_eq!(name_in(PROG_TYPES, 29), Some("BPF_PROG_TYPE_LSM"));
    assert_eq!(number_in(ATTACH_TYPES, "BPF_TRACE_FENTRY"), Some(24));
    for table in [COMMANDS, MAP_TYPES, PROG_TYPES, ATTACH_TYPES, LINK_TYPES] {
        assert!((0u32..).zip(table).all(|(index, &(value, _))| index == value));
    }
}
