//! `/init` of every virtual machine: see [`conform_boot`].

fn main() {
    if let Err(why) = conform_boot::stage::run() {
        // The harness finds this line in the console log of a boot that came no further.
        eprintln!("conform-boot: {why}");
    }
    conform_boot::power_off();
}
