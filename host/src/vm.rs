//! The exact QEMU command lines: pure functions from an image and a launch blob to arguments.
//!
//! Nothing here runs anything, so an operator, a test and an auditor read the same list. What of it
//! the hardware measures is said in `measurement::launch`; what it does not measure can stop the
//! job and no more.
//!
//! | platform | accelerator | measured by |
//! |---|---|---|
//! | [`Guest::Snp`] | KVM | the AMD security processor; kernel, initrd and command line by hash |
//! | [`Guest::Tdx`] | KVM | the Intel TDX module and, from its own code on, the firmware |
//! | [`Guest::Emulated`] | TCG | nothing: SIMULATED evidence only, for machines without hardware |
//!
//! Emulation never uses KVM: a KVM node that opens may belong to a hypervisor without hardware
//! support, under which a stock kernel stops half-way.

use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};

/// Bit position of the encryption bit in page-table entries on every SNP processor (Milan, Genoa,
/// Turin): CPUID `0x8000001F` EBX bits 5:0.
const SNP_CBIT_POSITION: u32 = 51;
/// Physical address bits that encryption takes: CPUID `0x8000001F` EBX bits 11:6.
const SNP_REDUCED_PHYS_BITS: u32 = 1;
/// SNP guest policy: SMT allowed (bit 16), reserved and one (bit 17); no debugging (bit 19), no
/// migration agent (bit 18), any ABI version.
pub const SNP_POLICY: u64 = 0x3_0000;
/// The vsock port of Intel's quote generation service on the host.
const QUOTE_PORT: &str = "4050";

/// What QEMU is to boot: the four parts of an image folder, and the machine they were measured for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `-bios`; only confidential machines run it.
    pub firmware: PathBuf,
    /// `-kernel`.
    pub kernel: PathBuf,
    /// `-initrd`.
    pub initrd: PathBuf,
    /// `-append`: the measured command line.
    pub cmdline: String,
    /// `-cpu` of a confidential machine; emulation takes `max`.
    pub cpu: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Guest memory, in MiB.
    pub memory_mib: u32,
}

/// The unix sockets and files of one run. QEMU is the client of every socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wires {
    /// Socket of `cloister.host`.
    pub host: PathBuf,
    /// Socket of `cloister.relay`.
    pub relay: PathBuf,
    /// Socket of `cloister.asp`, the simulated security processor.
    pub asp: Option<PathBuf>,
    /// File that takes the guest's console.
    pub console: PathBuf,
}

/// The kind of machine, with what the hardware is told about the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Software emulation.
    Emulated,
    /// AMD SEV-SNP.
    Snp {
        /// HOST_DATA: SHA-256 of the launch blob.
        host_data: [u8; 32],
    },
    /// Intel TDX, QEMU 10.1 or later.
    Tdx {
        /// MRCONFIGID: SHA-384 of the launch blob.
        mr_config_id: [u8; 48],
    },
}

impl Guest {
    /// The first QEMU version, major and minor, that knows this machine.
    #[must_use]
    pub const fn needs_qemu(self) -> (u32, u32) {
        match self {
            Self::Emulated => (6, 0),
            Self::Snp { .. } => (9, 1),
            Self::Tdx { .. } => (10, 1),
        }
    }
}

/// QEMU's arguments, without the program's own name.
#[must_use]
pub fn arguments(image: &Image, guest: Guest, wires: &Wires) -> Vec<String> {
    let mut list = Arguments::default();
    list.machine(image, guest);
    list.common(image, wires);
    list.ports(guest, wires);
    list.0
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn pair(&mut self, flag: &str, value: impl Into<String>) {
        self.0.push(flag.to_owned());
        self.0.push(value.into());
    }

    fn machine(&mut self, image: &Image, guest: Guest) {
        match guest {
            Guest::Emulated => {
                self.pair("-accel", "tcg,thread=multi");
                self.pair("-cpu", "max");
                self.pair("-machine", "q35");
            }
            Guest::Snp { host_data } => {
                self.pair("-accel", "kvm");
                self.pair("-cpu", image.cpu.as_str());
                self.pair("-machine", confidential_machine("sev0", "smm=off,vmport=off,usb=off"));
                self.memory(image);
                self.pair("-object", snp_object(host_data));
                self.pair("-bios", plain(&image.firmware));
            }
            Guest::Tdx { mr_config_id } => {
                self.pair("-accel", "kvm");
                self.pair("-cpu", "host");
                self.pair("-machine", confidential_machine("tdx0", "smm=off,pic=off,usb=off"));
                self.memory(image);
                self.pair("-object", tdx_object(mr_config_id));
                self.pair("-bios", plain(&image.firmware));
            }
        }
    }

    /// Private pages come from guest_memfd; shared ones need `share=true`.
    fn memory(&mut self, image: &Image) {
        let size = image.memory_mib;
        self.pair(
            "-object",
            format!("memory-backend-memfd,id=ram0,size={size}M,share=true,prealloc=false"),
        );
    }

    fn common(&mut self, image: &Image, wires: &Wires) {
        self.pair("-m", format!("{}M", image.memory_mib));
        self.pair("-smp", image.vcpus.to_string());
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            self.flag(flag);
        }
        self.pair("-display", "none");
        self.pair("-kernel", plain(&image.kernel));
        self.pair("-initrd", plain(&image.initrd));
        self.pair("-append", image.cmdline.as_str());
        self.pair("-chardev", format!("file,id=console,path={}", escaped(&wires.console)));
        self.pair("-serial", "chardev:console");
    }

    fn ports(&mut self, guest: Guest, wires: &Wires) {
        // A confidential guest shares only bounce buffers, so its devices go through them.
        let shared = match guest {
            Guest::Emulated => "",
            Guest::Snp { .. } | Guest::Tdx { .. } => ",iommu_platform=on",
        };
        self.pair("-device", format!("virtio-serial-pci,id=wires,disable-legacy=on{shared}"));
        self.port(1, "host", &wires.host);
        self.port(2, "relay", &wires.relay);
        if let (Guest::Emulated, Some(asp)) = (guest, &wires.asp) {
            self.port(3, "asp", asp);
        }
    }

    fn port(&mut self, number: u32, name: &str, socket: &Path) {
        self.pair("-chardev", format!("socket,id={name},path={}", escaped(socket)));
        self.pair(
            "-device",
            format!(
                "virtserialport,bus=wires.0,nr={number},chardev={name},id={name}-port,\
                 name=cloister.{name}"
            ),
        );
    }
}

fn confidential_machine(object: &str, off: &str) -> String {
    format!(
        "q35,kernel-irqchip=split,confidential-guest-support={object},memory-backend=ram0,\
         hpet=off,{off}"
    )
}

fn snp_object(host_data: [u8; 32]) -> String {
    format!(
        "sev-snp-guest,id=sev0,cbitpos={SNP_CBIT_POSITION},\
         reduced-phys-bits={SNP_REDUCED_PHYS_BITS},policy={SNP_POLICY:#x},kernel-hashes=on,\
         host-data={}",
        Base64::encode_string(&host_data)
    )
}

/// Nested members need QEMU's JSON form. No value here needs escaping.
fn tdx_object(mr_config_id: [u8; 48]) -> String {
    let id = Base64::encode_string(&mr_config_id);
    format!(r#"{{"qom-type":"tdx-guest","id":"tdx0","mrconfigid":"{id}","sept-ve-disable":true,"#)
        + &format!(
            r#""quote-generation-socket":{{"type":"vsock","cid":"2","port":"{QUOTE_PORT}"}}}}"#
        )
}

fn plain(path: &Path) -> String {
    path.display().to_string()
}

/// In QEMU's `key=value` lists a comma is written twice.
fn escaped(path: &Path) -> String {
    plain(path).replace(',', ",,")
}

/// Reads the major and minor number out of `qemu-system-x86_64 --version`.
#[must_use]
pub fn version(output: &str) -> Option<(u32, u32)> {
    let number = output.lines().next()?.split_once("version ")?.1;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image {
            firmware: "image/firmware.fd".into(),
            kernel: "image/kernel".into(),
            initrd: "image/initrd".into(),
            cmdline: "console=ttyS0 quiet".into(),
            cpu: "EPYC-Genoa".into(),
            vcpus: 2,
            memory_mib: 1024,
        }
    }

    fn wires() -> Wires {
        Wires {
            host: "run/host.sock".into(),
            relay: "run/relay.sock".into(),
            asp: Some("asp.sock".into()),
            console: "run/console.log".into(),
        }
    }

    fn common() -> Vec<&'static str> {
        vec![
            "-m",
            "1024M",
            "-smp",
            "2",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-kernel",
            "image/kernel",
            "-initrd",
            "image/initrd",
            "-append",
            "console=ttyS0 quiet",
            "-chardev",
            "file,id=console,path=run/console.log",
            "-serial",
            "chardev:console",
            "-device",
        ]
    }

    fn ports() -> Vec<&'static str> {
        vec![
            "-chardev",
            "socket,id=host,path=run/host.sock",
            "-device",
            "virtserialport,bus=wires.0,nr=1,chardev=host,id=host-port,name=cloister.host",
            "-chardev",
            "socket,id=relay,path=run/relay.sock",
            "-device",
            "virtserialport,bus=wires.0,nr=2,chardev=relay,id=relay-port,name=cloister.relay",
        ]
    }

    #[test]
    fn the_emulated_machine_is_golden() {
        let head = vec!["-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35"];
        let bus = vec!["virtio-serial-pci,id=wires,disable-legacy=on"];
        let asp = vec![
            "-chardev",
            "socket,id=asp,path=asp.sock",
            "-device",
            "virtserialport,bus=wires.0,nr=3,chardev=asp,id=asp-port,name=cloister.asp",
        ];
        let golden = [head, common(), bus, ports(), asp].concat();
        assert_eq!(arguments(&image(), Guest::Emulated, &wires()), golden);
    }

    #[test]
    fn the_snp_machine_is_golden_and_has_no_third_port() {
        let head = vec![
            "-accel",
            "kvm",
            "-cpu",
            "EPYC-Genoa",
            "-machine",
            "q35,kernel-irqchip=split,confidential-guest-support=sev0,memory-backend=ram0,\
             hpet=off,smm=off,vmport=off,usb=off",
            "-object",
            "memory-backend-memfd,id=ram0,size=1024M,share=true,prealloc=false",
            "-object",
            "sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,\
             kernel-hashes=on,host-data=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
            "-bios",
            "image/firmware.fd",
        ];
        let bus = vec!["virtio-serial-pci,id=wires,disable-legacy=on,iommu_platform=on"];
        let golden = [head, common(), bus, ports()].concat();
        assert_eq!(arguments(&image(), Guest::Snp { host_data: [1; 32] }, &wires()), golden);
    }

    #[test]
    fn the_tdx_machine_is_golden() {
        let head = vec![
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-machine",
            "q35,kernel-irqchip=split,confidential-guest-support=tdx0,memory-backend=ram0,\
             hpet=off,smm=off,pic=off,usb=off",
            "-object",
            "memory-backend-memfd,id=ram0,size=1024M,share=true,prealloc=false",
            "-object",
            concat!(
                r#"{"qom-type":"tdx-guest","id":"tdx0","mrconfigid":""#,
                "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC",
                r#"","sept-ve-disable":true,"quote-generation-socket":"#,
                r#"{"type":"vsock","cid":"2","port":"4050"}}"#,
            ),
            "-bios",
            "image/firmware.fd",
        ];
        let bus = vec!["virtio-serial-pci,id=wires,disable-legacy=on,iommu_platform=on"];
        let golden = [head, common(), bus, ports()].concat();
        assert_eq!(arguments(&image(), Guest::Tdx { mr_config_id: [2; 48] }, &wires()), golden);
    }

    #[test]
    fn no_guest_may_be_debugged_or_migrated() {
        assert_eq!(SNP_POLICY & (1 << 19 | 1 << 18), 0);
    }

    #[test]
    fn a_comma_in_a_path_adds_no_property() {
        let wires = Wires { host: "a,server=on".into(), ..wires() };
        let list = arguments(&image(), Guest::Emulated, &wires);
        assert!(list.contains(&"socket,id=host,path=a,,server=on".to_owned()));
    }

    #[test]
    fn reads_the_version_of_qemu() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright";
        assert_eq!(version(debian), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.1.0"), Some((10, 1)));
        assert_eq!(version("QEMU"), None);
    }
}
