// Process 1 of the emulated machine: runs every line of /commands, tells how each ended, switches the machine off.
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

int main() {
  std::ifstream file("/commands");
  for (std::string line; std::getline(file, line);) {
    std::istringstream stream(line);
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    std::vector<char *> arguments;
    for (std::string &word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    std::printf("\n> %s\n", line.c_str());
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) execv(arguments[0], arguments.data()), _exit(127);
    int status = 0;
    waitpid(child, &status, 0);
    std::printf("\n%s: %s\n", WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "PASS" : "FAIL", line.c_str());
    std::fflush(stdout);
  }
  std::printf("\nEND\n");
  std::fflush(stdout);
  sleep(1);
  reboot(RB_POWER_OFF);
}
