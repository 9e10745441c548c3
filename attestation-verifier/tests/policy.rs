//! A policy names every check, and a waiver gives its reason.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use attestation_verifier::advice::advice;
use attestation_verifier::policy::{AppraisalPolicy, PolicyError, STRICT};
use attestation_verifier::root::Root;
use common::amd::{Hierarchy, Shape};
use common::with;
use measurement::digest::sha384;
use measurement::manifest::Tee;

fn problem(policy: &str) -> String {
    match AppraisalPolicy::parse(policy) {
        Err(PolicyError::Syntax { problem }) => problem,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn accepts_the_strict_policy_and_digests_its_exact_bytes() {
    let policy = AppraisalPolicy::parse(STRICT).unwrap();
    assert_eq!(policy.digest().as_bytes(), &sha384(STRICT.as_bytes()));
    assert_eq!(policy.further_roots().count(), 0);
    let more = AppraisalPolicy::parse(&format!("{STRICT}\n")).unwrap();
    assert_ne!(more.digest(), policy.digest());
}

#[test]
fn rejects_a_policy_that_leaves_any_check_out() {
    let mut names = 0;
    for line in STRICT.lines() {
        let Some((name, _)) = line.split_once('=') else { continue };
        let name = name.trim();
        if name.is_empty()
            || ["tcb_floor", "evaluation_number"].contains(&name)
            || name.contains(['#', ' ', '{'])
        {
            continue;
        }
        let without = STRICT.replacen(&format!("{line}\n"), "", 1);
        assert!(problem(&without).contains(&format!("missing field `{name}`")), "{name}");
        names += 1;
    }
    assert_eq!(names, 4 + 32 + 23 + 11 + 10);
}

#[test]
fn rejects_checks_it_does_not_know() {
    let policy = STRICT.replace("[tdx]", "[tdx]\nspeed = { require = \"on\" }");
    assert!(problem(&policy).contains("unknown field `speed`"));
    assert!(problem(&format!("{STRICT}\n[dpu]\n")).contains("unknown field `dpu`"));
}

#[test]
fn rejects_a_waiver_without_a_reason_and_a_requirement_beside_a_waiver() {
    let judge = |value: &str| problem(&with(STRICT, "snp.debug", value));
    assert!(judge("{ waived = \" \" }").contains("a waiver needs its reason"));
    let both = "{ require = \"forbidden\", waived = \"x\" }";
    assert!(judge(both).contains("expected either `require` or `waived`"));
    assert!(judge("{}").contains("expected either `require` or `waived`"));
    assert!(
        judge("{ require = \"forbidden\", unless = \"x\" }").contains("unknown field `unless`")
    );
    assert!(judge("\"forbidden\"").contains("invalid type"));
}

#[test]
fn rejects_requirements_it_cannot_read() {
    for (check, value, expected) in [
        ("snp.debug", "{ require = \"allowed\" }", "expected \"forbidden\", found \"allowed\""),
        ("snp.firmware", "{ require = \"1.55\" }", "expected a version"),
        ("snp.firmware", "{ require = \"1.55.256\" }", "expected a version"),
        ("snp.products", "{ require = [\"venice\"] }", "unknown variant `venice`"),
        ("snp.id_key", "{ require = [\"00\"] }", "expected 48 bytes"),
        (
            "snp.tcb_floor",
            "{ require = [{ cpu = \"19\", bootloader = 0, tee = 0, snp = 0, microcode = 0 }] }",
            "expected a cpu",
        ),
        ("tdx.xfam", "{ require = \"0xe7\" }", "16 hexadecimal digits"),
        ("gpu.driver", "{ require = [] }", "expected driver versions"),
        ("gpu.driver", "{ require = [\"550\"] }", "expected driver versions"),
        ("gpu.vbios", "{ require = [\"96.00.9G.00.01\"] }", "expected vbios versions"),
        ("gpu.modes", "{ require = [\"off\"] }", "unknown variant `off`"),
        ("gpu.fwid", "{ require = \"maybe\" }", "expected \"present\""),
        ("nvswitch.topology", "{ require = \"any\" }", "expected \"complete\""),
        ("tdx.evaluation_number", "{ require = -1 }", "expected a number or a list"),
        ("tdx.evaluation_number", "{ require = [] }", "expected a number or a list"),
        (
            "tdx.evaluation_number",
            "{ require = [{ since = \"2026-13-01\", least = 1 }] }",
            "expected a number or a list",
        ),
        ("tdx.tcb_status", "{ require = [\"Revoked\"] }", "unknown variant `Revoked`"),
        ("tdx.mr_owner", "{ require = \"any\" }", "expected \"zero\" or a list of 48 bytes"),
        ("tdx.mr_owner", "{ require = [\"00\"] }", "expected \"zero\" or a list of 48 bytes"),
        ("snp.crl", "{ require = \"stale\" }", "unknown variant `stale`"),
        ("binding.challenge", "{ require = \"zero\" }", "unknown variant `zero`"),
    ] {
        let problem = problem(&with(STRICT, check, value));
        assert!(problem.contains(expected), "{check}: {problem}");
    }
}

#[test]
fn rejects_a_policy_that_accepts_nothing_or_goes_on_for_ever() {
    let binding = &STRICT[STRICT.find("[binding]").unwrap()..STRICT.find("[snp]").unwrap()];
    assert_eq!(AppraisalPolicy::parse(binding).err(), Some(PolicyError::Empty));
    let limit = 256 * 1024;
    let mut long = format!("{STRICT}\n#");
    long.extend(std::iter::repeat_n('#', limit - long.len()));
    assert!(AppraisalPolicy::parse(&long).is_ok());
    long.push('#');
    let too_long = PolicyError::TooLong { observed: limit + 1, limit };
    assert_eq!(AppraisalPolicy::parse(&long).err(), Some(too_long));
}

#[test]
fn holds_the_number_of_roots_and_the_length_of_their_names() {
    use attestation_verifier::policy::with_root;
    use common::nvidia::{Lab, unchanged};

    let roots = |count: usize, name: &str| {
        let mut text = STRICT.to_string();
        for index in 0..count {
            // Every root is another certificate.
            let own = Lab::new(&unchanged).policy_from("");
            let at = own.find("-----BEGIN").unwrap();
            let until = own.find("-----END CERTIFICATE-----").unwrap() + 25;
            let name = if count == 1 { name.to_string() } else { format!("{name}{index}") };
            text = with_root(&text, &name, "simulated", "nvidia", &own[at..until]);
        }
        AppraisalPolicy::parse(&text).map(|policy| policy.further_roots().count())
    };
    assert_eq!(roots(16, "root"), Ok(16));
    assert!(matches!(roots(17, "root"), Err(PolicyError::Root { .. })));
    assert_eq!(roots(1, &"x".repeat(64)), Ok(1));
    assert!(matches!(roots(1, &"x".repeat(65)), Err(PolicyError::Root { .. })));
}

#[test]
fn lists_what_it_waives_for_each_platform() {
    let policy = AppraisalPolicy::parse(STRICT).unwrap();
    let checks = |tee| -> Vec<_> { policy.waived(tee).into_iter().map(|w| w.check).collect() };
    assert!(checks(Tee::Snp).contains(&"snp.author_key"));
    assert!(!checks(Tee::Snp).contains(&"tdx.smt"));
    let devices = policy.waived_for_devices().into_iter().map(|w| w.check);
    assert_eq!(devices.collect::<Vec<_>>(), ["gpu.chip", "nvswitch.chip"]);
    assert_eq!(
        checks(Tee::Tdx),
        [
            "binding.platform",
            "tdx.cached_keys",
            "tdx.dynamic_platform",
            "tdx.mr_config_id",
            "tdx.mr_seam",
            "tdx.mr_td",
            "tdx.platform_instance",
            "tdx.ppid",
            "tdx.rtmr0",
            "tdx.rtmr1",
            "tdx.rtmr2",
            "tdx.smt",
            "tdx.tee_tcb_svn",
        ]
    );
}

#[test]
fn names_further_roots_and_rejects_what_is_none() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let text = hierarchy.policy();
    let policy = AppraisalPolicy::parse(&text).unwrap();
    let roots: Vec<_> = policy.further_roots().collect();
    assert_eq!(roots, [&Root::Simulated("test".into())]);
    let refused = |text: &str| match AppraisalPolicy::parse(text) {
        Err(PolicyError::Root { problem, .. }) => problem,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    assert_eq!(refused(&hierarchy.policy_from(&text)), "is already a root");
    let named = text.replace("name = \"test\"", "name = \"a\\nb\"");
    assert!(refused(&named).starts_with("needs a name"));
    let broken = text.replace("-----END CERTIFICATE-----", "");
    assert_eq!(refused(&broken), "not PEM of certificates or revocation lists");
    let mut ask = hierarchy;
    ask.ark = ask.vcek.clone();
    assert_eq!(refused(&ask.policy()), "is not the certificate of a root");
    let kind = text.replace("kind = \"simulated\"", "kind = \"genuine\"");
    assert!(problem(&kind).contains("unknown variant `genuine`"));
}

/// The names of checks in the sources, as in `snp.debug`.
fn ids_in_sources(section: &str) -> Vec<String> {
    fn walk(folder: &std::path::Path, texts: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, texts);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    let mut texts = Vec::new();
    walk(concat!(env!("CARGO_MANIFEST_DIR"), "/src").as_ref(), &mut texts);
    let mark = format!("\"{section}.");
    let name = |rest: &str| rest.split('"').next().unwrap().to_string();
    let mut ids: Vec<_> =
        texts.iter().flat_map(|text| text.split(&mark).skip(1).map(name)).collect();
    ids.retain(|id| !id.is_empty() && id.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'));
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn the_page_says_of_every_flaw_what_to_do() {
    let mut count = 0;
    for section in ["origin", "shape", "devices"] {
        for id in ids_in_sources(section) {
            let id = format!("{section}.{id}");
            // Quotes another's reason, or was said by a command that found nothing to judge.
            let says_all = ["origin.collateral", "shape.evidence"].contains(&id.as_str());
            assert_eq!(advice(&id).is_none(), says_all, "{id}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn the_page_says_of_every_check_of_the_policy_what_to_do() {
    let mut section = "";
    let mut count = 0;
    for line in STRICT.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((check, _)) = line.split_once('=')
            && !line.starts_with([' ', '#'])
        {
            let id = format!("{section}.{}", check.trim());
            assert!(advice(&id).is_some(), "{id}");
            count += 1;
        }
    }
    assert!(count > 80, "{count}");
}

#[test]
fn has_no_advice_on_what_is_no_finding() {
    for id in ["", ".", "snp", "snp.", ".debug", "tdx.vmpl", "gpu.locked", "snp.debug.", "id"] {
        assert_eq!(advice(id), None, "{id}");
    }
    assert_ne!(advice("snp.debug"), advice("tdx.debug"));
}
