//! Layouts of the attributes, and the real calls where this machine allows them (root, a kernel with BPF).
//!
//! Programs are loaded for verification and test runs only; nothing is attached to the machine that builds.

use std::mem::offset_of;

use super::info::{IdAttr, InfoAttr, RawBtfInfo, RawLinkInfo, RawMapInfo, RawProgInfo};
use super::link::{AttachAttr, LinkCreateAttr, LinkUpdateAttr, PinAttr, RawTracepointAttr};
use super::map::{CreateAttr, ElementAttr};
use super::prog::{BtfLoadAttr, LoadAttr, TestAttr};
use super::*;
use crate::asm::Asm;
use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};
use crate::helper;
use crate::insn::Reg::{R0, R1, R2, R10};
use crate::insn::Size;

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
    assert_eq!((size_of::<LinkUpdateAttr>(), size_of::<AttachAttr>(), size_of::<PinAttr>()), (16, 20, 16));
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

/// A map, or `None` where this machine does not let us, which ends the test.
fn array_if_allowed(max_entries: u32) -> Option<OwnedFd> {
    match map_create(&MapSpec::array(8, max_entries).named("probe-test")) {
        Ok(fd) => Some(fd),
        Err(Errno::EPERM | Errno::ENOSYS) => None,
        Err(errno) => panic!("creating a map: {errno}"),
    }
}

#[test]
fn maps_keep_what_is_written_and_guard_their_sizes() {
    let Some(map) = array_if_allowed(2) else { return };
    let (key, value) = (1u32.to_le_bytes(), 77u64.to_le_bytes());
    map_update(&map, &key, &value, BPF_ANY).unwrap();
    let mut read = [0; 8];
    map_lookup(&map, &key, &mut read).unwrap();
    assert_eq!(read, value);
    assert_eq!(map_lookup(&map, &key, &mut [0; 4]), Err(Errno::EINVAL));
    assert_eq!(map_update(&map, &[], &value, BPF_ANY), Err(Errno::EINVAL));
    assert_eq!(map_lookup(&map, &9u32.to_le_bytes(), &mut read), Err(Errno::ENOENT));
    let mut next = [0; 4];
    assert_eq!(map_next_key(&map, None, &mut next), Ok(true));
    assert_eq!(map_next_key(&map, Some(&key), &mut next), Ok(false));
    let info = map_info(&map).unwrap();
    assert_eq!((info.name.as_str(), info.value_size, info.max_entries), ("probe_test", 8, 2));
    assert_eq!(map_info(map_get_fd_by_id(info.id).unwrap()), Ok(info));
    let per_cpu = map_create(&MapSpec::new(BPF_MAP_TYPE_PERCPU_ARRAY, 4, 4, 1)).unwrap();
    let mut all = vec![0; map_info(&per_cpu).unwrap().value_bytes().unwrap() as usize];
    map_lookup(&per_cpu, &[0; 4], &mut all).unwrap();
}

#[test]
fn a_program_runs_and_tells_about_itself() {
    let Some(map) = array_if_allowed(1) else { return };
    let mut a = Asm::new();
    a.ld_map_value(R1, &map, 0).mov_imm(R2, 5).atomic_add(Size::DW, R1, 0, R2).mov_imm(R0, 9).exit();
    let spec = ProgSpec::new(BPF_PROG_TYPE_SOCKET_FILTER, "counter", a.finish().unwrap());
    let loaded = prog_load_logged(&spec, 2).unwrap();
    assert!(loaded.log.contains("exit"), "{}", loaded.log);
    let run = TestRun { data_in: &[0; 64], ..TestRun::default() };
    assert_eq!(prog_test_run(&loaded.fd, run).map(|r| r.retval), Ok(9));
    let mut value = [0; 8];
    map_lookup(&map, &[0; 4], &mut value).unwrap();
    assert_eq!(u64::from_le_bytes(value), 5);
    let info = prog_info(&loaded.fd).unwrap();
    assert_eq!((info.prog_type, info.name.as_str(), info.gpl_compatible), (1, "counter", true));
    assert_eq!(info.map_ids, [map_info(&map).unwrap().id]);
    assert!(crate::disasm::text(&info.xlated).contains("map_value["));
}

#[test]
fn refusals_carry_the_reason() {
    if array_if_allowed(1).is_none() {
        return;
    }
    let mut a = Asm::new();
    a.ldx(Size::DW, R0, R10, -8).ldx(Size::DW, R0, R0, 0).exit();
    let mut spec = ProgSpec::new(BPF_PROG_TYPE_SOCKET_FILTER, "bad", a.finish().unwrap());
    let error = prog_load(&spec, 1).unwrap_err();
    assert!(matches!(error.errno, Errno::EACCES | Errno::EINVAL), "{error:?}");
    assert!(error.log.contains("r0 = *(u64 *)(r10 -8)"), "{}", error.log);
    assert_eq!(prog_load(&spec, 0).unwrap_err().log, "");
    spec.insns.clear();
    assert_eq!(prog_load(&spec, 1).unwrap_err().errno, Errno::E2BIG);
    // Direct access to values needs an array of one element: an errno that user space has no name for.
    let Some(map) = array_if_allowed(2) else { return };
    spec.insns = Asm::new().ld_map_value(R0, &map, 0).exit().finish().unwrap();
    let error = prog_load(&spec, 1).unwrap_err();
    assert_eq!((error.errno, errno_name(error.errno).as_str()), (ENOTSUPP, "ENOTSUPP"));
    assert_eq!(errno_name(Errno::EACCES), "EACCES");
    let error = btf_load(b"no btf").unwrap_err();
    assert_eq!(error.errno, Errno::EINVAL);
}

/// Types for a map value with a lock, and functions for a callback, as programs of the suite need them.
#[test]
fn own_types_serve_maps_and_callbacks() {
    let Some(plain) = array_if_allowed(1) else { return };
    let mut b = BtfBuilder::new();
    let int = b.int("int", 4, SIGNED);
    let u64_ = b.int("unsigned long long", 8, UNSIGNED);
    let lock = b.structure("bpf_spin_lock", 4, &[("val", int, 0)]);
    let value = b.structure("value", 16, &[("lock", lock, 0), ("count", u64_, 8)]);
    let void_ptr = b.ptr(0);
    let main = b.func_proto(int, &[("ctx", void_ptr)]);
    let main = b.func("main", main, Linkage::Global);
    let each = b.func_proto(int, &[("index", u64_), ("ctx", void_ptr)]);
    let each = b.func("each", each, Linkage::Static);
    let btf = btf_load(&b.finish()).unwrap_or_else(|e| panic!("{}\n{}", e.errno, e.log));
    let (btf_fd, btf_key_type_id, btf_value_type_id) = (Some(raw(&btf)), int, value);
    let map = map_create(&MapSpec { btf_fd, btf_key_type_id, btf_value_type_id, ..MapSpec::array(16, 1) });
    assert!(map.is_ok(), "{map:?}");

    let mut a = Asm::new();
    a.mov_imm(R1, 4).ld_func(R2, "each").mov_imm(crate::insn::Reg::R3, 0).mov_imm(crate::insn::Reg::R4, 0);
    a.call(helper::LOOP).exit().label("each").ld_map_value(R1, &plain, 0).mov_imm(R2, 1);
    a.atomic_add(Size::DW, R1, 0, R2).mov_imm(R0, 0).exit();
    let insn_off = a.position("each").unwrap();
    let spec = ProgSpec {
        prog_btf_fd: btf_fd,
        func_info: vec![FuncInfo { insn_off: 0, type_id: main }, FuncInfo { insn_off, type_id: each }],
        ..ProgSpec::new(BPF_PROG_TYPE_SOCKET_FILTER, "callback", a.finish().unwrap())
    };
    match prog_load(&spec, 1) {
        Ok(prog) => {
            let run = TestRun { data_in: &[0; 64], ..TestRun::default() };
            assert_eq!(prog_test_run(&prog, run).map(|r| r.retval), Ok(4));
        }
        Err(error) => assert!(error.log.contains("unknown func"), "{}", error.log), // before 5.17
    }
}

fn raw(fd: &OwnedFd) -> RawFd {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}
