//! `image.json`.

use super::*;

const SNP_JSON: &str =
    r#"{"platform":"snp","cpu":"EPYC-Genoa","vcpus":2,"memory_mib":1024,"guest_features":1}"#;

fn tdx_json() -> String {
    let digest = |byte: &str| byte.repeat(48);
    format!(
        r#"{{"platform":"tdx","cpu":"host","vcpus":2,"memory_mib":1024,"acpi":{{"loader":"{}","rsdp":"{}","tables":"{}"}}}}"#,
        digest("01"),
        digest("02"),
        digest("03"),
    )
}

#[test]
fn an_image_measures_as_its_shape_does() {
    let golden = Golden::new();
    let image: Image = serde_json::from_str(SNP_JSON).unwrap();
    let launch_digest = Octets(golden.snp().unwrap());
    assert_eq!(image.measure(&golden.parts()), Ok(Measured::Snp { launch_digest }));
    let image: Image = serde_json::from_str(&tdx_json()).unwrap();
    let tdx::Registers { mrtd, rtmr } = golden.tdx().unwrap();
    let [mrtd, rtmr0, rtmr1, rtmr2] = [mrtd, rtmr[0], rtmr[1], rtmr[2]].map(Octets);
    let measured = Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 };
    assert_eq!(image.measure(&golden.parts()), Ok(measured));
}

#[test]
fn an_image_prints_what_it_parses() {
    for json in [SNP_JSON.to_owned(), tdx_json()] {
        let image: Image = serde_json::from_str(&json).unwrap();
        let again = serde_json::to_string(&image).unwrap();
        assert_eq!(serde_json::from_str::<Image>(&again).unwrap(), image);
    }
}

#[test]
fn rejects_an_image_with_unknown_fields_or_platform() {
    for (from, to) in [
        ("\"vcpus\"", "\"vpcus\""),
        ("\"snp\"", "\"sev\""),
        ("1024", "-1"),
        ("{", "{\"debug\":true,"),
        ("\"cpu\":\"EPYC-Genoa\",", ""),
    ] {
        let json = SNP_JSON.replace(from, to);
        assert!(serde_json::from_str::<Image>(&json).is_err(), "{json}");
    }
}

#[test]
fn rejects_an_image_that_does_not_suit_its_platform() {
    let golden = Golden::new();
    let measure = |json: &str| {
        serde_json::from_str::<Image>(json).unwrap().measure(&golden.parts()).unwrap_err()
    };
    assert_eq!(measure(&SNP_JSON.replace("snp", "tdx")), LaunchError::AcpiMissing);
    assert_eq!(measure(&tdx_json().replace("tdx", "snp")), LaunchError::TdxFieldForSnp);
    assert_eq!(measure(&SNP_JSON.replace("EPYC-Genoa", "host")), LaunchError::Cpu(UnknownCpu));
    let without_features = SNP_JSON.replace(",\"guest_features\":1", "");
    assert_eq!(measure(&without_features), LaunchError::GuestFeatures { observed: 0 });
}

#[test]
fn a_measurement_travels_in_cbor_and_in_json() {
    let golden = Golden::new();
    let launch_digest = Octets(golden.snp().unwrap());
    let measured = Measured::Snp { launch_digest };
    let bytes = crate::cbor::encode(&measured);
    assert_eq!(crate::cbor::decode::<Measured>(&bytes, 128), Ok(measured));
    assert_eq!(
        serde_json::to_string(&measured).unwrap(),
        format!(r#"{{"snp":{{"launch_digest":"{launch_digest}"}}}}"#)
    );
}
