//! `cloister-host image`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use host::image::Image;
use host::initrd::{self, Module};
use measurement::launch::{self, tdx::Acpi};
use measurement::octets::Octets;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Platform {
    Snp,
    Tdx,
}

#[derive(Debug, Args)]
pub struct Arguments {
    /// The hardware that is to measure the image
    #[arg(long)]
    platform: Platform,
    /// The static program that becomes /init
    #[arg(long, value_name = "FILE")]
    init: PathBuf,
    /// A bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// OVMF, built for the platform
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT")]
    cmdline: String,
    /// A kernel module (.ko, not compressed) for /modules; repeat it in the order of loading
    #[arg(long, value_name = "FILE")]
    module: Vec<PathBuf>,
    /// Virtual processors
    #[arg(long, value_name = "N")]
    vcpus: u32,
    /// Guest memory, in MiB
    #[arg(long, value_name = "N")]
    memory_mib: u32,
    /// QEMU's name for the processor
    #[arg(long, value_name = "NAME")]
    cpu: String,
    /// SHA-384 of the host's ACPI table loader (tdx)
    #[arg(long, value_name = "HEX", requires_all = ["acpi_rsdp", "acpi_tables"])]
    acpi_loader: Option<Octets<48>>,
    /// SHA-384 of the host's ACPI root pointer (tdx)
    #[arg(long, value_name = "HEX", requires = "acpi_loader")]
    acpi_rsdp: Option<Octets<48>>,
    /// SHA-384 of the host's ACPI tables (tdx)
    #[arg(long, value_name = "HEX", requires = "acpi_loader")]
    acpi_tables: Option<Octets<48>>,
    /// The image folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let modules =
        arguments.module.iter().map(|path| module(path)).collect::<Result<Vec<_>, _>>()?;
    let image = Image {
        shape: shape(arguments),
        firmware: read(&arguments.firmware)?,
        kernel: read(&arguments.kernel)?,
        initrd: initrd::write(&read(&arguments.init)?, &modules)?,
        cmdline: arguments.cmdline.clone(),
    };
    let measured = image.write(&arguments.out)?;
    super::print(&measured, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

fn shape(arguments: &Arguments) -> launch::Image {
    let acpi = match (arguments.acpi_loader, arguments.acpi_rsdp, arguments.acpi_tables) {
        (Some(loader), Some(rsdp), Some(tables)) => Some(Acpi { loader, rsdp, tables }),
        _ => None,
    };
    let (platform, guest_features) = match arguments.platform {
        // Bit 0: SNP is active, and no optional feature is.
        Platform::Snp => (launch::Platform::Snp, 1),
        Platform::Tdx => (launch::Platform::Tdx, 0),
    };
    launch::Image {
        platform,
        cpu: arguments.cpu.clone(),
        vcpus: arguments.vcpus,
        memory_mib: arguments.memory_mib,
        guest_features,
        acpi,
        page_order: None,
    }
}

fn module(path: &Path) -> anyhow::Result<Module> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    Ok(Module { name, bytes: read(path)? })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
