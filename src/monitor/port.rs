//! An interface as `ip` shows it, and whether it may become a monitor port.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Refusal;
use super::act::Act;
use crate::config::{Method, Monitor, Namespace};
use crate::kernel::namespace::is_same;

/// Where the interface is, and its present state.
#[derive(Debug)]
pub(super) struct Place {
    /// Whether it has to be moved into the monitor's namespace.
    pub(super) is_outside: bool,
    pub(super) is_up: bool,
    pub(super) is_promiscuous: bool,
    pub(super) has_arp: bool,
    /// Whether the kernel can be told how much of one connection to merge into one packet.
    pub(super) gro_max_size: Option<u32>,
    /// Whether the loopback interface of the monitor's namespace is up.
    pub(super) is_loopback_up: bool,
    /// Whether the kernel knows IPv6.
    pub(super) has_ipv6: bool,
}

/// One interface of `ip -json address`.
#[derive(Debug, Deserialize)]
struct Link {
    ifname: String,
    flags: Vec<String>,
    link: Option<String>,
    master: Option<String>,
    #[serde(default)]
    linkinfo: LinkInfo,
    gro_max_size: Option<u32>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Debug, Default, Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
    info_slave_kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Address {
    #[serde(default)]
    local: String,
    #[serde(default)]
    scope: String,
}

/// One route of `ip -json route`.
#[derive(Debug, Deserialize)]
struct Route {
    dst: String,
    dev: Option<String>,
    r#type: Option<String>,
    #[serde(default)]
    nexthops: Vec<Hop>,
}

#[derive(Debug, Deserialize)]
struct Hop {
    dev: Option<String>,
}

impl Route {
    /// Whether somebody made it: every interface that is up has routes of the kernel's.
    fn is_foreign(&self) -> bool {
        let is_local = self.dst.starts_with("fe80::/") || self.dst.starts_with("ff00::/");
        let is_unicast = self.r#type.as_deref().is_none_or(|kind| kind == "unicast");
        is_unicast && !is_local
    }

    fn leads_to(&self, interface: &str) -> bool {
        self.devs().any(|dev| dev == interface)
    }

    fn devs(&self) -> impl Iterator<Item = &str> {
        let hops = self.nexthops.iter().map(|hop| hop.dev.as_deref());
        hops.chain([self.dev.as_deref()]).flatten()
    }
}

impl Link {
    fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|it| it == flag)
    }
}

/// Looks at the interface, its namespace and its neighbours, and changes nothing.
pub(super) fn examine(monitor: &Monitor) -> Result<Place, Refusal> {
    let (interface, namespace) = (monitor.interface.as_str(), monitor.namespace.as_ref());
    let own = links(None)?;
    let inside = match namespace {
        Some(namespace) => {
            refuse_own(monitor.method, namespace)?;
            links(Some(namespace)).map_err(|error| {
                format!("{error}: make the namespace first (\"ip netns add\"), or change namespace")
            })?
        }
        None => Vec::new(),
    };
    let find = |links: &[Link]| links.iter().position(|link| link.ifname == interface);
    let (links, index, is_outside) = match (find(&inside), find(&own)) {
        (Some(index), _) => (&inside, index, false),
        (None, Some(index)) => (&own, index, namespace.is_some()),
        (None, None) => {
            return Err(
                "expected the interface to exist, found none of that name: \"ip link\" lists them"
                    .to_owned(),
            );
        }
    };
    let link = &links[index];
    let here = namespace.filter(|_| !is_outside);
    refuse_used(link, links, &routes(here, "all")?)?;
    if let (Method::Nft, Some(namespace)) = (monitor.method, namespace) {
        refuse_routed(&routes(Some(namespace), "main")?)?;
    }
    Ok(Place {
        is_outside,
        is_up: link.is("UP"),
        is_promiscuous: link.is("PROMISC"),
        has_arp: !link.is("NOARP"),
        gro_max_size: link.gro_max_size,
        is_loopback_up: inside
            .iter()
            .any(|link| link.is("LOOPBACK") && link.is("UP")),
        has_ipv6: Path::new("/proc/sys/net/ipv6/conf").exists(),
    })
}

/// The gateway's own firewall and NAT would act on the frames.
fn refuse_own(method: Method, namespace: &Namespace) -> Result<(), Refusal> {
    match method == Method::Nft && is_same(Some(namespace), None) {
        true => Err(
            "expected a namespace of its own with method \"nft\", found the one in which this command runs: make another \
             (\"ip netns add\"), or use method \"tc\""
                .to_owned(),
        ),
        false => Ok(()),
    }
}

/// A port for mirrored frames cannot have another purpose.
fn refuse_used(link: &Link, links: &[Link], routes: &[Route]) -> Result<(), Refusal> {
    let name = &link.ifname;
    let address = link
        .addr_info
        .iter()
        .find(|address| address.scope != "link");
    let upper = links.iter().find(|other| {
        let kind = other.linkinfo.info_kind.as_deref();
        other.link.as_ref() == Some(name) && kind != Some("veth")
    });
    let mut routes = routes
        .iter()
        .filter(|route| route.is_foreign() && route.leads_to(name))
        .map(|route| &route.dst);
    let (expected, found) = if link.is("LOOPBACK") {
        ("a port", "the loopback interface".to_owned())
    } else if let Some(master) = &link.master {
        let kind = link.linkinfo.info_slave_kind.as_deref();
        let found = format!("a port of {master} ({})", kind.unwrap_or("master"));
        ("an interface of its own", found)
    } else if routes.clone().any(|dst| dst == "default") {
        (
            "an interface without routes",
            "the default route".to_owned(),
        )
    } else if let Some(address) = address {
        (
            "an interface without addresses",
            format!("{} on it", address.local),
        )
    } else if let Some(upper) = upper {
        (
            "an interface of its own",
            format!("{} on top of it", upper.ifname),
        )
    } else if let Some(dst) = routes.next() {
        ("an interface without routes", format!("one to {dst}"))
    } else {
        return Ok(());
    };
    Err(format!(
        "expected {expected}, found {found}: a monitor port is for mirrored frames only; use another, or free it first"
    ))
}

/// A route of another's would lead mirrored packets to somebody.
fn refuse_routed(routes: &[Route]) -> Result<(), Refusal> {
    // A second port makes one route of both.
    let leaves = |route: &&Route| !route.devs().all(|dev| dev.starts_with(SINK));
    match routes
        .iter()
        .find(|route| route.is_foreign() && leaves(route))
    {
        Some(route) => Err(format!(
            "expected a namespace without routes with method \"nft\", found one to {} by {}: mirrored packets would leave \
             there; use a namespace for monitor ports alone",
            route.dst,
            route.dev.as_deref().unwrap_or("several interfaces")
        )),
        None => Ok(()),
    }
}

/// The names of sinks begin with this.
pub(super) const SINK: &str = "s-";

fn links(namespace: Option<&Namespace>) -> Result<Vec<Link>, Refusal> {
    ask(namespace, "ip -json -details address show")
}

fn routes(namespace: Option<&Namespace>, table: &str) -> Result<Vec<Route>, Refusal> {
    let line = |family: &str| format!("ip -json {family} route show table {table}");
    let mut routes: Vec<Route> = ask(namespace, &line("-4"))?;
    routes.extend(ask::<Vec<Route>>(namespace, &line("-6"))?);
    Ok(routes)
}

/// `ip` answers with nothing at all where there is nothing, and reports a table without routes as missing.
fn ask<T: Default + DeserializeOwned>(
    namespace: Option<&Namespace>,
    line: &str,
) -> Result<T, Refusal> {
    let answer = match Act::run(namespace, line).output() {
        Ok(answer) => answer,
        Err(error) if error.to_string().contains("FIB table does not exist") => {
            return Ok(T::default());
        }
        Err(error) => return Err(error.to_string()),
    };
    match answer.trim() {
        "" => Ok(T::default()),
        text => serde_json::from_str(text).map_err(|error| format!("\"{line}\": {error}")),
    }
}
