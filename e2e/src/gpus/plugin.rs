//! The device plugin: one socket a resource in the kubelet's folder, registered anew whenever the kubelet forgets it.

use super::devices::Devices;
use super::protocol::v1beta1::device_plugin_server::{DevicePlugin, DevicePluginServer};
use super::protocol::v1beta1::registration_client::RegistrationClient;
use super::protocol::v1beta1::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, Device, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest,
};
use anyhow::{Context, Result};
use futures::stream::{self, BoxStream, StreamExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

const VERSION: &str = "v1beta1";
const KUBELET_SOCKET: &str = "kubelet.sock";

struct Plugin {
    resource: String,
    devices: Devices,
}

fn listed(devices: &[super::devices::Device]) -> ListAndWatchResponse {
    let health = |healthy| if healthy { "Healthy" } else { "Unhealthy" }.to_owned();
    ListAndWatchResponse {
        devices: devices.iter().map(|device| Device { id: device.uuid.clone(), health: health(device.healthy) }).collect(),
    }
}

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    /// What there is now, and again whenever it changes.
    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (devices, resource) = (self.devices.clone(), self.resource.clone());
        let first = listed(&devices.of(&resource));
        let later = stream::unfold((devices.changes(), devices, resource), |(mut changes, devices, resource)| async move {
            changes.changed().await.ok()?;
            let now = listed(&devices.of(&resource));
            Some((Ok(now), (changes, devices, resource)))
        });
        Ok(Response::new(stream::once(async { Ok(first) }).chain(later).boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Ok(Response::new(PreferredAllocationResponse::default()))
    }

    /// The container sees its devices' UUIDs, as NVIDIA's runtime would take them.
    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let known = self.devices.of(&self.resource);
        let mut container_responses = Vec::new();
        for container in request.into_inner().container_requests {
            if let Some(unknown) = container.devices_ids.iter().find(|id| !known.iter().any(|device| device.uuid == **id)) {
                return Err(Status::not_found(format!("there is no device {unknown}")));
            }
            if let Some(stuck) = known.iter().find(|device| device.stuck && container.devices_ids.contains(&device.uuid)) {
                return Err(Status::internal(format!("device {} does not answer", stuck.uuid)));
            }
            let envs = [("NVIDIA_VISIBLE_DEVICES".to_owned(), container.devices_ids.join(","))].into();
            container_responses.push(ContainerAllocateResponse { envs });
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(&self, _: Request<PreStartContainerRequest>) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse::default()))
    }
}

/// Serves one resource for ever. A kubelet that restarts empties its folder: then everything is begun again.
pub async fn serve(folder: PathBuf, resource: String, devices: Devices) -> Result<()> {
    let endpoint = format!("simulated-{}.sock", resource.replace('/', "-"));
    let socket = folder.join(&endpoint);
    loop {
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).with_context(|| format!("listening on {}", socket.display()))?;
        let incoming =
            stream::unfold(listener, |listener| async move { Some((listener.accept().await.map(|(stream, _)| stream), listener)) });
        let plugin = Plugin { resource: resource.clone(), devices: devices.clone() };
        let server = Server::builder().add_service(DevicePluginServer::new(plugin)).serve_with_incoming(incoming);
        let registered = async {
            let kubelet = register(&folder, &endpoint, &resource).await;
            println!("{resource}: registered with the kubelet");
            forgotten(&folder, &socket, kubelet).await;
        };
        tokio::select! {
            ended = server => ended.context("the plugin's server ended")?,
            () = registered => println!("{resource}: the kubelet has forgotten us"),
        }
    }
}

/// Registers, however long the kubelet takes to be there. Gives back which kubelet it was.
async fn register(folder: &Path, endpoint: &str, resource: &str) -> Option<u64> {
    let kubelet = folder.join(KUBELET_SOCKET);
    loop {
        let identity = inode(&kubelet);
        match attempt(&kubelet, endpoint, resource).await {
            Ok(()) => return identity,
            Err(error) => eprintln!("{resource}: registering: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn attempt(kubelet: &Path, endpoint: &str, resource: &str) -> Result<()> {
    let channel = Endpoint::try_from(format!("unix://{}", kubelet.display()))?.connect().await.context("reaching the kubelet")?;
    let request =
        RegisterRequest { version: VERSION.to_owned(), endpoint: endpoint.to_owned(), resource_name: resource.to_owned(), options: None };
    RegistrationClient::new(channel).register(request).await?;
    Ok(())
}

/// Returns when our socket is gone, or when another kubelet has made its own.
async fn forgotten(folder: &Path, socket: &Path, kubelet: Option<u64>) {
    while socket.exists() && inode(&folder.join(KUBELET_SOCKET)).is_none_or(|now| Some(now) == kubelet) {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> (Plugin, Devices) {
        let devices = Devices::describe("n", "nvidia.com/gpu=2").expect("described");
        (Plugin { resource: "nvidia.com/gpu".into(), devices: devices.clone() }, devices)
    }

    #[tokio::test]
    async fn a_device_that_falls_ill_is_listed_again() {
        let (plugin, devices) = plugin();
        let mut stream = plugin.list_and_watch(Request::new(Empty {})).await.expect("lists").into_inner();
        let first = stream.next().await.expect("a list").expect("no error");
        assert!(first.devices.iter().all(|device| device.health == "Healthy"));
        devices.set_health(&first.devices[1].id, false);
        let second = stream.next().await.expect("a list").expect("no error");
        assert_eq!(second.devices[1].health, "Unhealthy");
    }

    #[tokio::test]
    async fn a_container_sees_the_devices_that_it_was_given() {
        let (plugin, devices) = plugin();
        let uuid = devices.of("nvidia.com/gpu")[1].uuid.clone();
        let ask = |id: &str| AllocateRequest {
            container_requests: vec![super::super::protocol::v1beta1::ContainerAllocateRequest { devices_ids: vec![id.to_owned()] }],
        };
        let answer = plugin.allocate(Request::new(ask(&uuid))).await.expect("allocates").into_inner();
        assert_eq!(answer.container_responses[0].envs["NVIDIA_VISIBLE_DEVICES"], uuid);
        assert!(plugin.allocate(Request::new(ask("another"))).await.is_err());
    }

    #[tokio::test]
    async fn a_device_that_is_stuck_is_listed_as_healthy_and_given_to_nobody_until_it_is_mended() {
        let (plugin, devices) = plugin();
        let uuid = devices.of("nvidia.com/gpu")[1].uuid.clone();
        let ask = || AllocateRequest {
            container_requests: vec![super::super::protocol::v1beta1::ContainerAllocateRequest { devices_ids: vec![uuid.clone()] }],
        };
        assert!(devices.stick(&uuid) && !devices.stick("another"));
        let mut stream = plugin.list_and_watch(Request::new(Empty {})).await.expect("lists").into_inner();
        let listed = stream.next().await.expect("a list").expect("no error");
        assert!(listed.devices.iter().all(|device| device.health == "Healthy"));
        let refused = plugin.allocate(Request::new(ask())).await.expect_err("it is not given");
        assert_eq!(refused.message(), format!("device {uuid} does not answer"));
        assert!(devices.set_health(&uuid, true) && plugin.allocate(Request::new(ask())).await.is_ok());
    }
}
