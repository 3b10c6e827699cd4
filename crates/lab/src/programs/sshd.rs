//! OpenSSH: a daemon on the agent's loopback, and ready-made settings for ssh, scp and git on the client's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{READY, binary, with_clean_home};
use crate::debian::find;
use crate::process::Running;
use crate::world::World;

/// A running sshd, reachable only on its own loopback, port 22.
#[derive(Debug)]
pub struct Sshd {
    /// The client's private key.
    pub key: PathBuf,
    _process: Running,
}

impl Sshd {
    /// Makes keys and starts it in the agent's namespace.
    pub fn start(world: &World) -> Result<Self> {
        let dir = world.dir().join("ssh");
        fs::create_dir_all(&dir)?;
        // Its privilege separation wants this directory, which a package makes at boot.
        fs::create_dir_all("/run/sshd").context("making /run/sshd")?;
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.join(name));
            Running::run("ssh-keygen", &mut keygen, READY)?.success()?;
        }
        fs::copy(dir.join("user.pub"), dir.join("authorized_keys"))?;
        fs::set_permissions(
            dir.join("authorized_keys"),
            fs::Permissions::from_mode(0o600),
        )?;
        let dir_text = dir.display();
        fs::write(
            dir.join("sshd_config"),
            format!(
                "ListenAddress 127.0.0.1:22\nHostKey {dir_text}/host\nAuthorizedKeysFile {dir_text}/authorized_keys\n\
                 PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n\
                 PasswordAuthentication no\nSubsystem sftp internal-sftp\n"
            ),
        )?;
        let mut command = world
            .agent
            .namespace
            .command(find("sshd").context("no sshd")?);
        command
            .args(["-D", "-e", "-f"])
            .arg(dir.join("sshd_config"));
        let process = Running::start("sshd", &mut command)?;
        process.wait_for("readiness", READY, |l| {
            l.text.contains("Server listening").then_some(())
        })?;
        Ok(Self {
            key: dir.join("user"),
            _process: process,
        })
    }
}

/// Writes an ssh configuration whose host `workspace` is reached by `byway stdio` with these options.
/// Returns the arguments that make ssh, scp and git use it.
pub fn ssh_tools(world: &World, sshd: &Sshd, peer: &str, options: &[&str]) -> Result<Vec<String>> {
    let known = world.dir().join("known_hosts");
    let config = world.dir().join("ssh_config");
    fs::write(
        &config,
        format!(
            "Host workspace\n  ProxyCommand {} stdio {peer} 127.0.0.1:22 {}\n\
             Host *\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  BatchMode yes\n\
             UserKnownHostsFile {}\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n",
            binary("byway").display(),
            options.join(" "),
            sshd.key.display(),
            known.display(),
        ),
    )?;
    Ok(vec!["-F".to_owned(), config.display().to_string()])
}

/// Runs a program on the client's host and requires it to succeed.
pub fn on_client(
    world: &World,
    program: &str,
    args: &[String],
    env: &[(&str, &str)],
    deadline: Duration,
) -> Result<String> {
    let home = world.dir().join("home-client");
    fs::create_dir_all(&home)?;
    let mut command = with_clean_home(world.client.namespace.command(program), &home);
    command
        .current_dir(&home)
        .args(args)
        .env("BYWAY_NO_PORT_MAPPING", "true");
    for (name, value) in env {
        command.env(name, value);
    }
    Ok(Running::run(program, &mut command, deadline)?
        .success()?
        .stdout())
}
