//! What changes a measurement, and what does not.

use super::*;

#[test]
fn one_bit_of_any_part_changes_the_snp_digest() {
    let golden = Golden::new().snp().unwrap();
    for (part, change) in [
        ("firmware", (|g: &mut Golden| g.firmware[0x1234] ^= 1) as fn(&mut Golden)),
        ("kernel", |g| g.kernel[0x333] ^= 0x80),
        ("initrd", |g| g.initrd[0] ^= 1),
        ("cmdline", |g| g.cmdline.replace_range(0..1, "b")),
    ] {
        assert_ne!(Golden::new().with(change).snp().unwrap(), golden, "{part}");
    }
}

#[test]
fn one_bit_of_any_part_changes_its_tdx_register_only() {
    let golden = Golden::new().tdx().unwrap();
    for (part, change, register) in [
        ("code", (|g: &mut Golden| g.firmware[0x1234] ^= 1) as fn(&mut Golden), None),
        ("variables", |g| g.firmware[0xfff] ^= 1, Some(0)),
        ("kernel", |g| g.kernel[0x333] ^= 0x80, Some(1)),
        ("initrd", |g| g.initrd[0] ^= 1, Some(2)),
        ("cmdline", |g| g.cmdline.replace_range(0..1, "b"), Some(2)),
    ] {
        let changed = Golden::new().with(change).tdx().unwrap();
        assert_eq!(changed.mrtd != golden.mrtd, register.is_none(), "{part}");
        for index in 0..4 {
            let differs = changed.rtmr[index] != golden.rtmr[index];
            assert_eq!(differs, register == Some(index), "{part}, rtmr{index}");
        }
    }
}

#[test]
fn white_space_of_the_command_line_matters() {
    let golden = Golden::new();
    for cmdline in [
        "console=hvc0 quiet ",
        " console=hvc0 quiet",
        "console=hvc0  quiet",
        "console=hvc0 quiet\n",
        "console=hvc0\tquiet",
    ] {
        let changed = Golden::new().with(|g| g.cmdline = cmdline.to_owned());
        assert_ne!(changed.snp(), golden.snp(), "{cmdline:?}");
        assert_ne!(changed.tdx(), golden.tdx(), "{cmdline:?}");
    }
}

#[test]
fn every_field_of_the_snp_shape_matters() {
    let golden = Golden::new();
    let digest = |shape| snp::launch_digest(&golden.parts(), &shape).unwrap();
    let shape = snp_shape();
    for changed in [
        snp::Shape { vcpus: 1, ..shape },
        snp::Shape { vcpus: 3, ..shape },
        snp::Shape { cpu: "EPYC-Turin".parse().unwrap(), ..shape },
        snp::Shape { guest_features: 0x21, ..shape },
    ] {
        assert_ne!(digest(changed), digest(shape), "{changed:?}");
    }
}

#[test]
fn every_field_of_the_tdx_shape_matters() {
    let golden = Golden::new();
    let registers = |shape| tdx::registers(&golden.parts(), &shape).unwrap();
    let shape = tdx_shape();
    for changed in [
        tdx::Shape { memory_mib: 1025, ..shape },
        tdx::Shape { page_order: PageOrder::TwoPass, ..shape },
        tdx::Shape { acpi: Acpi { loader: Octets([4; 48]), ..acpi() }, ..shape },
        tdx::Shape { acpi: Acpi { rsdp: Octets([4; 48]), ..acpi() }, ..shape },
        tdx::Shape { acpi: Acpi { tables: Octets([4; 48]), ..acpi() }, ..shape },
    ] {
        assert_ne!(registers(changed), registers(shape), "{changed:?}");
    }
}

#[test]
fn the_kernel_sees_where_its_initrd_is_only_if_there_is_one() {
    let events = |golden: &Golden| tdx::events(&golden.parts(), &tdx_shape()).unwrap();
    let utf16 =
        |text: &str| sha384(&text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    let with = Golden::new();
    assert_eq!(event(&events(&with), "command line"), utf16("console=hvc0 quiet initrd=initrd\0"));
    assert_eq!(event(&events(&with), "initial ram disk"), sha384(b"initrd"));
    let without = Golden::new().with(|g| g.initrd.clear());
    assert_eq!(event(&events(&without), "command line"), utf16("console=hvc0 quiet\0"));
    assert!(!events(&without).iter().any(|event| event.name == "initial ram disk"));
}

#[test]
fn enrolled_keys_show_as_secure_boot() {
    let added = 0x3f;
    let golden = Golden::new().with(|g| {
        let volume = varstore::tests::volume(0x1000, &[(varstore::GLOBAL, "PK", b"key", added)]);
        put(&mut g.firmware, 0, &volume);
    });
    let events = tdx::events(&golden.parts(), &tdx_shape()).unwrap();
    let vendor = varstore::GLOBAL;
    let secure_boot = b"\x0a\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0S\0e\0c\0u\0r\0e\0B\0o\0o\0t\0\x01";
    assert_eq!(event(&events, "SecureBoot"), sha384(&[&vendor[..], secure_boot].concat()));
    let key = b"\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0P\0K\0key";
    assert_eq!(event(&events, "PK"), sha384(&[&vendor[..], key].concat()));
}
