//! `pause`: holds a pod's namespaces and does nothing.

fn main() {
    loop {
        std::thread::park();
    }
}
