/**
 * The program that works on files while everything around it is killed (crash-play.ts). Python, because it needs system calls
 * one by one and must be killed at any of them.
 *
 * A file is `BLOCKS` blocks, each filled with the name of the section that wrote it. A section opens the file for writing, notes
 * what it finds, and writes all blocks, one by one. A witness, a file beside the repository named after the inode, says who is in a section:
 * nobody else may be at that inode meanwhile. It tells what it does in lines of JSON, and the play looks at them afterwards.
 */

/** In every file of the play. */
export const BLOCKS = 8;
export const BLOCK_BYTES = 512;

/** argv: directory of the view, directory of witnesses, name, seed, comma-separated files; then perhaps `once`. */
export const WORKER = `
import errno, json, os, random, sys, time
view, witnesses, me, seed, files = sys.argv[1:6]
once = len(sys.argv) > 6
files = files.split(','); rnd = random.Random(int(seed)); count = 0
start = open('/proc/self/stat').read().rsplit(')', 1)[1].split()[19]
mine = '%d %s' % (os.getpid(), start)
os.set_blocking(0, False)

def tell(**what):
    os.write(1, (json.dumps(dict(what, t=time.time())) + '\\n').encode())

def alive(text):
    try:
        pid, began = text.split()
        fields = open('/proc/%s/stat' % pid).read().rsplit(')', 1)[1].split()
        # PF_EXITING (linux/sched.h): one that was killed closes its files long before it is gone.
        return fields[19] == began and not int(fields[6]) & 4
    except (OSError, ValueError): return False

def read_all(fd):
    data = os.pread(fd, ${BLOCKS * BLOCK_BYTES} + 1, 0)
    if len(data) != ${BLOCKS * BLOCK_BYTES}: return ['length %d' % len(data)]
    names = []
    for i in range(0, len(data), ${BLOCK_BYTES}):
        block = data[i:i + ${BLOCK_BYTES}]; name = block.rstrip(b'.')
        names.append(name.decode() if name + b'.' * (${BLOCK_BYTES} - len(name)) == block else 'torn block')
    return names

def why(e):
    if e.errno != errno.EDEADLK: return ''
    try: return open(os.path.join(view, '.gate/why')).read()[-400:]
    except OSError: return ''

def someone(ino):
    try: text = open(os.path.join(witnesses, str(ino))).read()
    except FileNotFoundError: return None
    return text if text != mine and alive(text) else None

def section(file):
    global count
    count += 1; name = '%s-%d' % (me, count); at = 'open'; fd = -1; witness = None
    tell(op='try', file=file)
    try:
        fd = os.open(os.path.join(view, file), os.O_RDWR)
        ino = os.fstat(fd).st_ino
        other = someone(ino)
        if other: tell(op='violation', what='%s is in %s (inode %d), and %s was let in' % (other, file, ino, name))
        witness = os.path.join(witnesses, str(ino))
        temporary = '%s.%d' % (witness, os.getpid())
        with open(temporary, 'w') as f: f.write(mine)
        os.rename(temporary, witness)
        at = 'read'
        tell(op='begin', file=file, name=name, found=read_all(fd), ino=ino)
        at = 'write'
        block = name.encode().ljust(${BLOCK_BYTES}, b'.')
        for i in range(${BLOCKS}):
            os.pwrite(fd, block, i * ${BLOCK_BYTES})
            if rnd.random() < .3: time.sleep(rnd.random() * .02)
        at = 'read'
        found = read_all(fd)
        if found != [name] * ${BLOCKS}: tell(op='violation', what='%s wrote %s, and found %s' % (name, file, found))
        if open(witness).read() != mine: tell(op='violation', what='somebody else was in %s during %s' % (file, name))
        os.unlink(witness); witness = None
        at = 'close'
        os.close(fd); fd = -1
        tell(op='end', file=file, name=name)
        return True
    except OSError as e:
        tell(op='error', at=at, file=file, name=name, error=errno.errorcode.get(e.errno, str(e.errno)), why=why(e))
    finally:
        if witness:
            try: os.unlink(witness)
            except OSError: pass
        if fd >= 0:
            try: os.close(fd)
            except OSError: pass
    time.sleep(.05)
    return False

def look(file):
    at = 'open'; fd = -1
    tell(op='try', file=file)
    try:
        fd = os.open(os.path.join(view, file), os.O_RDONLY)
        at = 'read'
        ino = os.fstat(fd).st_ino
        before = someone(ino)
        found = read_all(fd)
        after = someone(ino)
        for other in (before, after):
            if other: tell(op='violation', what='%s is in %s (inode %d), and somebody reads it' % (other, file, ino))
        tell(op='found', file=file, found=found, ino=ino)
    except OSError as e:
        tell(op='error', at=at, file=file, error=errno.errorcode.get(e.errno, str(e.errno)), why=why(e))
        time.sleep(.05)
    finally:
        if fd >= 0:
            try: os.close(fd)
            except OSError: pass

def replace(file):
    global count
    count += 1; name = '%s-%d' % (me, count); temporary = os.path.join(view, 'tmp-' + me); at = 'create'
    tell(op='try', file=file)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        at = 'write'
        try: os.write(fd, name.encode().ljust(${BLOCK_BYTES}, b'.') * ${BLOCKS})
        finally: os.close(fd)
        at = 'rename'
        os.rename(temporary, os.path.join(view, file))
        tell(op='replaced', file=file, name=name)
    except OSError as e:
        tell(op='error', at=at, file=file, error=errno.errorcode.get(e.errno, str(e.errno)))
        time.sleep(.05)

if once:
    done = section(files[0])
    sys.exit(0 if done else 1)
tell(op='ready')
while True:
    try:
        if os.read(0, 1) == b'': break
    except BlockingIOError: pass
    file = rnd.choice(files); what = rnd.random()
    if file.startswith('r'): replace(file) if what < .5 else look(file)
    elif what < .65: section(file)
    else: look(file)
    time.sleep(rnd.random() * .02)
tell(op='over')
`;
