//! The revision exchange as its parties meet it: OpenSSH's `sftp`, lftp, rclone and paramiko against our server, and
//! ours against OpenSSH's. `tests/sftp/run` fetches what is not installed and runs these; by
//! themselves they are passed over.

mod accounts;
mod again;
mod bad;
mod client;
mod collect;
mod folders;
mod latency;
mod least;
mod limits;
mod names;
mod proxy;
mod remote;
mod resume;
mod rows;
mod site;
mod sshd;
mod storm;
mod wire;
