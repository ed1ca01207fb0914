//! PID 1 of every virtual machine; see [`probes::guest`].

fn main() {
    probes::guest::main()
}
