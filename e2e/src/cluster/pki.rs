//! The cluster's certificates: one authority, one identity for each component and each node, as real clusters have them.
//! The authority's key is used once, when the cluster is first made, and kept for whoever needs another identity.

use super::layout::{ClusterInfo, Layout};
use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes what is missing; a whole set is left as it is.
pub fn ensure(layout: &Layout, info: &ClusterInfo) -> Result<()> {
    let whole = layout.pki("whole");
    if whole.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(layout.pki("")).context("making the folder for certificates")?;
    std::fs::set_permissions(layout.pki(""), std::fs::Permissions::from_mode(0o700))?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name = name("supercargo local cluster", None);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().context("making the authority's key")?;
    let certificate = authority.self_signed(&key).context("signing the authority")?;
    write(&layout.pki("ca.crt"), &certificate.pem())?;
    write(&layout.pki("ca.key"), &key.serialize_pem())?;
    let issuer = Issuer::new(authority, key);

    let service_accounts = KeyPair::generate().context("making the key of service accounts")?;
    write(&layout.pki("sa.key"), &service_accounts.serialize_pem())?;
    write(&layout.pki("sa.pub"), &service_accounts.public_key_pem())?;

    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let api = [local, info.subnet.gateway().into(), info.subnet.first_service().into()];
    let api_names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    issue(layout, &issuer, "apiserver", name("kube-apiserver", None), &api, &api_names)?;
    for (file, common_name, group) in [
        ("admin", "admin", Some("system:masters")),
        ("apiserver-kubelet", "kube-apiserver-kubelet-client", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("proxy", "system:kube-proxy", None),
        ("prometheus", "prometheus", None),
    ] {
        issue(layout, &issuer, file, name(common_name, group), &[], &[])?;
    }
    for (index, node) in info.nodes.iter().enumerate() {
        let address = [local, info.subnet.node(index).into()];
        issue(layout, &issuer, node, name(&format!("system:node:{node}"), Some("system:nodes")), &address, &[node])?;
    }
    write(&whole, "")
}

fn name(common_name: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name
}

fn issue(
    layout: &Layout,
    issuer: &Issuer<'_, KeyPair>,
    file: &str,
    subject: DistinguishedName,
    addresses: &[IpAddr],
    names: &[&str],
) -> Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
    for name in names {
        params.subject_alt_names.push(SanType::DnsName((*name).try_into().with_context(|| format!("{name} as a host name"))?));
    }
    let key = KeyPair::generate().with_context(|| format!("making the key of {file}"))?;
    let certificate = params.signed_by(&key, issuer).with_context(|| format!("signing the certificate of {file}"))?;
    write(&layout.pki(&format!("{file}.crt")), &certificate.pem())?;
    write(&layout.pki(&format!("{file}.key")), &key.serialize_pem())
}

fn write(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let mut opened =
        options.create(true).truncate(true).write(true).mode(0o600).open(file).with_context(|| format!("opening {}", file.display()))?;
    opened.write_all(text.as_bytes()).with_context(|| format!("writing {}", file.display()))
}

/// A kubeconfig for one of the identities above.
pub fn write_kubeconfig(layout: &Layout, info: &ClusterInfo, user: &str) -> Result<()> {
    let pki = layout.pki("");
    let pki = pki.display();
    let server = format!("https://{}:{}", info.subnet.gateway(), info.ports.api);
    // kubectl's users move the file about: nothing in it depends on where it lies.
    let embed = |file: &str| -> Result<String> {
        use std::process::Command;
        let path = layout.pki(file);
        let output = Command::new("base64").arg("-w0").arg(&path).output().with_context(|| format!("reading {}", path.display()))?;
        anyhow::ensure!(output.status.success(), "reading {}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let identity = if user == "admin" {
        format!("client-certificate-data: {}, client-key-data: {}", embed("admin.crt")?, embed("admin.key")?)
    } else {
        format!("client-certificate: {pki}/{user}.crt, client-key: {pki}/{user}.key")
    };
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: local\n\
         clusters:\n- name: local\n  cluster: {{server: \"{server}\", certificate-authority-data: {}}}\n\
         users:\n- name: {user}\n  user: {{{identity}}}\n\
         contexts:\n- name: local\n  context: {{cluster: local, user: {user}}}\n",
        embed("ca.crt")?
    );
    write(&layout.kubeconfig(user), &text)
}
