//! Simulated GPUs: to Kubernetes they are real ones. A device plugin offers them to the kubelet, labels describe them as
//! GPU feature discovery would, and an exporter tells of each under DCGM's names which pod has it.

pub mod devices;
pub mod exporter;
pub mod labels;
pub mod plugin;

#[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated from the protocol")]
mod protocol {
    pub mod v1beta1 {
        tonic::include_proto!("v1beta1");
    }
    pub mod v1 {
        tonic::include_proto!("v1");
    }
}
