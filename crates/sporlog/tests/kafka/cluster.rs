//! Real brokers, on free ports and in a folder of their own, gone at the end.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};

/// Brokers that are controllers as well.
pub struct Cluster {
    dir: tempfile::TempDir,
    brokers: Vec<Broker>,
}

struct Broker {
    port: u16,
    properties: PathBuf,
    process: Option<Child>,
}

/// The folder of Kafka's jars.
fn libs() -> PathBuf {
    std::env::var_os("SPORLOG_TEST_KAFKA").expect("SPORLOG_TEST_KAFKA: use tests/kafka/run").into()
}

fn java(main: &str, args: &[&Path]) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xms128m", "-Xmx512m", "-cp"]).arg(libs().join("*")).arg(main).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Ports that are free now.
pub fn ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

impl Cluster {
    /// Formats `count` brokers with these further properties; they are not started yet.
    pub fn formatted(count: usize, further: &str) -> Self {
        Self::formatted_with(&ports(count), &ports(count), further, &[])
    }

    /// The same on these ports, with further arguments for the formatting.
    pub fn formatted_with(ports: &[u16], controllers: &[u16], further: &str, formatting: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let count = ports.len();
        let voters: Vec<_> =
            controllers.iter().enumerate().map(|(id, port)| format!("{}@127.0.0.1:{port}", id + 1)).collect();
        let voters = voters.join(",");
        let mut brokers = Vec::new();
        for (at, (port, controller)) in ports.iter().zip(controllers).enumerate() {
            let (id, data) = (at + 1, dir.path().join(format!("data{at}")));
            let properties = dir.path().join(format!("{at}.properties"));
            let text = format!(
                "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
                 log.dirs={}\nauto.create.topics.enable=false\n\
                 offsets.topic.num.partitions=2\noffsets.topic.replication.factor={count}\n\
                 transaction.state.log.num.partitions=2\ntransaction.state.log.replication.factor={count}\n\
                 transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor={count}\n\
                 share.coordinator.state.topic.min.isr=1\n\
                 group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\n\
                 log.retention.check.interval.ms=1000\nlog.segment.delete.delay.ms=0\n{further}\n",
                data.display()
            );
            std::fs::write(&properties, text).expect("written");
            let args = ["format", "-t", "c3Bvcmxvdy10ZXN0LTAwMQ", "-c"].map(Path::new);
            let further = formatting.iter().map(Path::new);
            let args: Vec<_> = args.into_iter().chain([properties.as_path()]).chain(further).collect();
            let formatted =
                java("kafka.tools.StorageTool", &args).stderr(Stdio::piped()).output().expect("java");
            assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
            brokers.push(Broker { port: *port, properties, process: None });
        }
        Cluster { dir, brokers }
    }

    /// Starts `count` brokers, and waits for them.
    pub fn start(count: usize) -> Self {
        let mut cluster = Self::formatted(count, "");
        (0..count).for_each(|at| cluster.start_broker(at));
        cluster.wait();
        cluster
    }

    pub fn start_broker(&mut self, at: usize) {
        let broker = &mut self.brokers[at];
        assert!(broker.process.is_none());
        broker.process = Some(java("kafka.Kafka", &[&broker.properties]).spawn().expect("java"));
    }

    /// SIGKILL.
    pub fn kill_broker(&mut self, at: usize) {
        let mut process = self.brokers[at].process.take().expect("running");
        process.kill().expect("killed");
        process.wait().expect("gone");
    }

    /// Has a broker that was killed find nothing of a partition's messages.
    pub fn lose_messages(&self, at: usize, topic: &str, partition: i32) {
        let dir = self.dir.path().join(format!("data{at}/{topic}-{partition}"));
        for file in std::fs::read_dir(dir).expect("the partition's folder") {
            let path = file.expect("a file").path();
            if path.file_name().is_none_or(|name| name != "partition.metadata") {
                std::fs::remove_file(path).expect("removed");
            }
        }
    }

    /// Waits until all that were started answer.
    pub fn wait(&self) {
        let begun = Instant::now();
        for broker in self.brokers.iter().filter(|broker| broker.process.is_some()) {
            while TcpStream::connect(("127.0.0.1", broker.port)).is_err() {
                assert!(begun.elapsed() < Duration::from_secs(150), "the broker does not start");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// For `bootstrap.servers`.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.brokers.iter().map(|b| format!("127.0.0.1:{}", b.port)).collect();
        addresses.join(",")
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.addresses()).set("message.timeout.ms", "60000");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let replication = TopicReplication::Fixed(self.brokers.len() as i32);
        let mut topic = NewTopic::new(name, partitions, replication);
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let begun = Instant::now();
        // A broker that has just started, or a topic that is just being deleted, takes a moment.
        loop {
            let created = block_on(self.admin().create_topics([&topic], &AdminOptions::new()));
            match created.map(|results| results.into_iter().next()) {
                Ok(Some(Ok(_))) => return,
                told => assert!(begun.elapsed() < Duration::from_secs(60), "{told:?}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn add_partitions(&self, name: &str, count: usize) {
        let added = NewPartitions::new(name, count);
        let added = block_on(self.admin().create_partitions([&added], &AdminOptions::new())).expect("added");
        assert!(added.iter().all(Result::is_ok), "{added:?}");
    }

    pub fn delete_topic(&self, name: &str) {
        let deleted = block_on(self.admin().delete_topics(&[name], &AdminOptions::new())).expect("deleted");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    /// Removes what stands before `offset` of a partition, as retention does.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).expect("deleted");
    }

    /// Forgets all that a group has noted.
    pub fn delete_group(&self, group: &str) {
        let deleted = block_on(self.admin().delete_groups(&[group], &AdminOptions::new())).expect("deleted");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    /// A folder for the test's own things.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.brokers.iter_mut().filter_map(|broker| broker.process.as_mut()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    futures::executor::block_on(future)
}
