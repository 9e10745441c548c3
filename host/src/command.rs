//! The verbs of `cloister-host`.

pub mod image;
pub mod launch;
pub mod measure;

use measurement::launch::Measured;

/// A measurement as lines of `name  hex`.
pub fn lines(measured: &Measured) -> String {
    match measured {
        Measured::Snp { launch_digest } => format!("snp.launch_digest  {launch_digest}"),
        Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 } => {
            format!("tdx.mrtd   {mrtd}\ntdx.rtmr0  {rtmr0}\ntdx.rtmr1  {rtmr1}\ntdx.rtmr2  {rtmr2}")
        }
    }
}

/// Prints a measurement to standard output.
pub fn print(measured: &Measured, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(measured)?);
    } else {
        println!("{}", lines(measured));
    }
    Ok(())
}
